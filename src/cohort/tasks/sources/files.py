"""Data files: JSON Lines, JSON, CSV, TSV and Parquet, each as rows with a place for error messages. All but Parquet may
be packed with gzip or zstd; what is in such a file is kept in memory, as it cannot be read from the middle.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import re
import weakref
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import orjson

from cohort.tasks.prompts import LONGEST, Rows
from cohort.types import UserError
from cohort.wording import one_line

PACKINGS = (".gz", ".zst")
OF_A_COLUMN = 1000  # shapes that are told apart: one whose values all differ, such as a table of names, is not followed


def table_rows(
    name: str,
    columns: Sequence[str],
    size: int,
    get: Callable[[int], Mapping[str, Any]],
    telling: Sequence[int] = (),
) -> Rows:
    """Rows of a table that its own library holds, or that are in memory; `name` is for messages: `train.csv, row 8`."""
    return Rows(tuple(columns), size, get, lambda index: f"{name}, row {index + 1}", telling)


def list_rows(rows: Sequence[Mapping[str, Any]], name: str) -> Rows:
    """Rows in memory. Their columns are all that one of them has."""
    columns: dict[str, None] = {}
    shapes = Shapes()
    for index, row in enumerate(rows):
        columns.update(dict.fromkeys(row))
        shapes.see(index, row)
    return table_rows(name, tuple(columns), len(rows), rows.__getitem__, shapes.first)


class Shapes:
    """The first row with other columns, and of every column the first with another type, or with empty text. What is
    missing or of another type in some row is so in one of these.
    """

    def __init__(self) -> None:
        self.first: list[int] = []
        self._seen: dict[str | None, set[Any]] = {}  # by column; None: which columns there are
        self._flat: set[tuple[Any, ...]] = set()  # columns and types of rows of single values that were seen

    def see(self, index: int, row: Mapping[str, Any]) -> None:
        """Look at the next row."""
        types = (*map(type, row.values()),)
        if _SINGLE.issuperset(types) and "" not in row.values():
            if (known := (*row, *types)) in self._flat:
                return
            if len(self._flat) < OF_A_COLUMN:
                self._flat.add(known)
        new = self._is_new(None, tuple(row))
        for name, value in row.items():
            new |= self._is_new(name, _shape(value))
        if new:
            self.first.append(index)

    def _is_new(self, column: str | None, shape: Any) -> bool:
        seen = self._seen.setdefault(column, set())
        if shape in seen or len(seen) == OF_A_COLUMN:
            return False
        seen.add(shape)
        return True


_SINGLE = frozenset((str, int, float, bool, type(None)))


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple([(name, _shape(part)) for name, part in value.items()])
    if isinstance(value, list):
        return frozenset(map(_shape, value))
    return type(value), isinstance(value, str) and not value


def telling_of_table(table: Any, before: int = 0) -> Iterator[int]:
    """The first row of an Arrow table in which a column is missing, or empty text; `before` rows came before it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for column in table.columns:
        found = [pc.index(column.is_null(), True).as_py()]
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            found.append(pc.index(column, pa.scalar("", column.type)).as_py())
        yield from (before + index for index in found if index >= 0)


def _opened(path: Path) -> IO[bytes]:
    ending = path.suffix.lower()
    if ending == ".zst":
        import pyarrow as pa

        return cast(IO[bytes], io.BufferedReader(pa.input_stream(path, compression="zstd")))
    return cast(IO[bytes], gzip.open(path)) if ending == ".gz" else path.open("rb")


def read_json_lines(path: Path) -> Rows:
    """A JSON Lines file; blank lines are skipped. A place is `train.jsonl:8`.

    It is read once to check every line; after that only the byte offsets are kept.
    """
    starts, lengths = array("q"), array("I")  # bytes of the file
    numbers = array("I")  # of the lines, because blank ones are skipped
    columns: dict[str, None] = {}
    shapes = Shapes()
    packed: list[bytes] | None = [] if path.suffix.lower() in PACKINGS else None  # the lines of a packed file
    name = str(path)
    for number, end, text in _lines(path):
        row = json_line(text, name, number)
        if not columns.keys() >= row.keys():
            columns.update(dict.fromkeys(row))
        shapes.see(len(numbers), row)
        starts.append(end - len(text))
        lengths.append(len(text))
        numbers.append(number)
        if packed is not None:
            packed.append(text)

    def place(index: int) -> str:
        return f"{path}:{numbers[index]}"

    def get(index: int) -> Mapping[str, Any]:
        if packed is not None:
            return json_line(packed[index], name, numbers[index])
        start, length = starts[index], lengths[index]
        if handle is not None:  # one call of the system, and threads and forks do not move each other's place
            return json_line(os.pread(handle, length, start), name, numbers[index])
        with path.open("rb") as file:
            file.seek(start)
            return json_line(file.read(length), name, numbers[index])

    handle = os.open(path, os.O_RDONLY) if packed is None and hasattr(os, "pread") else None
    if handle is not None:
        weakref.finalize(get, os.close, handle)

    def each() -> Iterator[Mapping[str, Any]]:
        return (json_line(text, name, number) for number, _, text in _lines(path))

    return Rows(tuple(columns), len(numbers), get, place, shapes.first, each)


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """The lines of a file that are not blank: the number of each, the byte behind it, and itself."""
    end = 0
    with _opened(path) as file:
        for number, line in enumerate(iter(partial(file.readline, LONGEST + 1), b""), start=1):
            if len(line) > LONGEST:
                raise UserError(
                    f"{path}:{number} is a line of more than {LONGEST >> 20} MB. JSON Lines has one object in a line: "
                    "look for a line's end that is missing, or for another kind of file; or remove the row."
                )
            end += len(line)
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not text.isspace():
                yield number, end, text


def json_line(line: bytes, name: str, number: int) -> dict[str, Any]:
    """One line of a file as a row, or a UserError that points at it."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:  # the other reader says what is wrong, or reads it
        row = None
    if type(row) is dict and ((keys := _keys(row)) == line.count(b":") or keys == len(_KEY.findall(line))):
        return row
    place = f"{name}:{number}"
    try:
        row = _DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        raise UserError(f"{place} is not UTF-8 text. Save the file as UTF-8 JSON Lines.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} {_why_no_json(error)}. Mend or remove that line.") from error
    if not isinstance(row, dict):
        raise UserError(f"{place} holds {kind(row)}; every line must be a JSON object.")
    return row


_KEY = re.compile(rb'"\s*:')  # behind every key, and perhaps in texts


def _keys(value: Any) -> float:
    """How many keys objects have here. Where a line has no more of them, orjson, which is fast, has left out none that
    was there twice. Infinitely many where a float is: it may have been an integer that is too large for orjson.
    """
    if type(value) is float:
        return math.inf
    parts = value.values() if type(value) is dict else value if type(value) is list else ()
    found: float = len(value) if type(value) is dict else 0
    for part in parts:
        if type(part) is not str:  # as most are
            found += _keys(part)
    return found


class _TwiceError(ValueError):
    """An object has a key twice, of which a reader would take one without a word."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _TwiceError(_twice([name for name, _ in pairs]))
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)  # once: json.loads would make one for every line


def _twice(names: Sequence[str]) -> str:
    """The first name that is there twice, "" if none is."""
    return next((name for index, name in enumerate(names) if name in names[:index]), "")


def _why_no_json(error: Exception) -> str:
    if isinstance(error, _TwiceError):
        return f"has the key {str(error)[:80]!r} twice in an object"
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON ({error})"
    if isinstance(error, RecursionError):
        return "has lists or objects nested too deeply"
    return "has a number of thousands of digits, which must be written as text"  # Python's limit on long integers


def kind(value: Any) -> str:
    """A JSON value in words, for a message."""
    if value is None:
        return "nothing"
    words = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return words.get(type(value), f"a value of type {type(value).__name__}")


def read_json(path: Path) -> Rows:
    """A JSON file: a list of objects, or an object with one such list in it (`{"data": [...]}`)."""
    try:
        with _opened(path) as file:
            text = file.read().decode("utf-8-sig")
        found = json.loads(text.strip() or "[]", object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        hint = " It looks like JSON Lines: name it .jsonl." if "Extra data" in error.msg else ""
        raise UserError(f"{path}:{error.lineno} is not JSON ({error.msg}).{hint}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text. Save it as UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} {_why_no_json(error)}. Mend it.") from error
    if isinstance(found, dict):
        lists = [value for value in found.values() if isinstance(value, list)]
        found = lists[0] if len(lists) == 1 else None
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise UserError(f"{path} must hold a list of JSON objects, one for each prompt.")
    return list_rows(found, str(path))


def read_separated(dialect: str, name: str, path: Path) -> Rows:
    """A file of fields with a header line, of a `dialect` of the module csv. Every value is text."""
    before = csv.field_size_limit(LONGEST)  # a field may be a whole book
    try:
        with io.TextIOWrapper(_opened(path), encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, dialect=dialect)
            rows = list(reader)
            names = [column for column in reader.fieldnames or () if column]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a {name} file that can be read ({error}).") from error
    finally:
        csv.field_size_limit(before)
    if twice := _twice(names):
        raise UserError(f"{path} has two columns that are called {twice!r}. Rename or remove one.")
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise UserError(f"{path}, row {number} has not as many fields as the header. Mend or remove that row.")
    return list_rows(rows, str(path))


def read_parquet(path: Path) -> Rows:
    """A Parquet file as an Arrow table. Parquet has no rows to seek to; for more than memory, use `datasets`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, memory_map=True)
        table.validate(full=True)  # or damaged bytes are met hours later, or never
        columns = table.column_names
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:  # damage may show as any of these
        raise UserError(f"{path} is not a Parquet file that can be read ({one_line(error)}).") from error

    def get(index: int) -> Mapping[str, Any]:
        try:
            return as_written(table.slice(index, 1).to_pylist()[0])
        except (pa.ArrowException, ValueError, OverflowError) as error:  # e.g. a date that Python does not have
            raise UserError(f"{path}, row {index + 1} cannot be read ({one_line(error)}).") from error

    return table_rows(str(path), columns, table.num_rows, get, [*telling_of_table(table)])


def as_written(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of Arrow as it was written: without the None that Arrow puts where an object inside of it lacks a field
    that another row has. A column that is None stays so.
    """
    return {column: _without_none(value) for column, value in row.items()}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(part) for key, part in value.items() if part is not None}
    return [_without_none(part) for part in value] if isinstance(value, list) else value
