"""Data files: JSON Lines, JSON, CSV, TSV and Parquet, each as rows with a place for error messages. All but Parquet may
be packed with gzip; what is in such a file is kept in memory, as it cannot be read from the middle.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

from cohort.tasks.prompts import Rows
from cohort.types import UserError
from cohort.wording import one_line


def table_rows(name: str, columns: Sequence[str], size: int, get: Callable[[int], Mapping[str, Any]]) -> Rows:
    """Rows of a table that its own library holds, or that are in memory; `name` is for messages: `train.csv, row 8`."""
    return Rows(tuple(columns), size, get, lambda index: f"{name}, row {index + 1}")


def list_rows(rows: Sequence[Mapping[str, Any]], name: str) -> Rows:
    """Rows in memory. Their columns are all that one of them has."""
    columns = dict.fromkeys(column for row in rows for column in row)
    return table_rows(name, tuple(columns), len(rows), rows.__getitem__)


def _opened(path: Path) -> IO[bytes]:
    packed = path.suffix.lower() == ".gz"
    return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")


def read_json_lines(path: Path) -> Rows:
    """A JSON Lines file; blank lines are skipped. A place is `train.jsonl:8`.

    It is read once to check every line; after that only the byte offsets are kept.
    """
    offsets: list[int] = []
    numbers: list[int] = []  # of the lines, because blank ones are skipped
    columns: dict[str, None] = {}
    packed: list[bytes] = []  # the lines of a packed file
    offset = 0
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                columns.update(dict.fromkeys(json_line(text, f"{path}:{number}")))
                offsets.append(offset + len(line) - len(text))
                numbers.append(number)
                packed += [text] if path.suffix.lower() == ".gz" else []
            offset += len(line)

    def place(index: int) -> str:
        return f"{path}:{numbers[index]}"

    def get(index: int) -> Mapping[str, Any]:
        if packed:
            return json_line(packed[index], place(index))
        with path.open("rb") as file:
            file.seek(offsets[index])
            return json_line(file.readline(), place(index))

    return Rows(tuple(columns), len(offsets), get, place)


def json_line(line: bytes, place: str) -> dict[str, Any]:
    """One line as a row, or a UserError that points at it."""
    try:
        row = json.loads(line.decode(), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise UserError(f"{place} is not UTF-8 text. Save the file as UTF-8 JSON Lines.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} {_why_no_json(error)}. Mend or remove that line.") from error
    if not isinstance(row, dict):
        raise UserError(f"{place} holds {kind(row)}; every line must be a JSON object.")
    return row


class _TwiceError(ValueError):
    """An object has a key twice, of which a reader would take one without a word."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _TwiceError(_twice([name for name, _ in pairs]))
    return found


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


def read_csv(path: Path) -> Rows:
    """A CSV file with a header line. Every value is text."""
    return _read_separated(path, "excel", "CSV")


def read_tsv(path: Path) -> Rows:
    """A file with a tab between fields and a header line. Every value is text."""
    return _read_separated(path, "excel-tab", "TSV")


def _read_separated(path: Path, dialect: str, name: str) -> Rows:
    before = csv.field_size_limit(sys.maxsize)  # a field may be a whole book
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

    return table_rows(str(path), columns, table.num_rows, get)


def as_written(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of Arrow as it was written: without the None that Arrow puts where an object inside of it lacks a field
    that another row has. A column that is None stays so.
    """
    return {column: _without_none(value) for column, value in row.items()}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(part) for key, part in value.items() if part is not None}
    return [_without_none(part) for part in value] if isinstance(value, list) else value
