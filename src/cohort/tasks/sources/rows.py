"""Rows from wherever they are: files, a directory of files, a Hugging Face dataset on disk or on the hub, Python.

    rows = open_rows("train.jsonl")
    len(rows), rows.columns, rows[7], rows.place(7)      # the place is for messages: "train.jsonl, line 8"

JSON Lines are indexed by byte offset and Parquet and datasets stay memory-mapped, so the size of a file costs little.
"""

from __future__ import annotations

import errno
import os
import re
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

from cohort.settings import PythonRows
from cohort.tasks.prompts import Rows
from cohort.tasks.sources.base import SOURCES
from cohort.tasks.sources.files import (
    PACKINGS,
    as_written,
    list_rows,
    read_json,
    read_json_lines,
    read_parquet,
    read_separated,
    table_rows,
    telling_of_table,
)
from cohort.types import UserError
from cohort.wording import nearest, one_line, shorten

HUB_PATIENCE_S = 10.0
SPLITS = ("train", "test", "validation", "valid", "dev", "held_out")
READERS: Mapping[str, Callable[[Path], Rows]] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": partial(read_separated, "excel", "CSV"),
    ".tsv": partial(read_separated, "excel-tab", "TSV"),
    ".parquet": read_parquet,
}
PACKED = tuple(f"{one}{packing}" for one in READERS if one != ".parquet" for packing in PACKINGS)  # read by the same
EXTENSIONS = (*READERS, ".txt", ".xlsx", ".gz", ".zip", ".zst", ".arrow", ".pkl", ".py", ".toml", ".yaml")
_READABLE = f"{', '.join(READERS)}, and all but the last with .gz or .zst behind"


def open_rows(
    source: Any, split: str = "train", config: str | None = None, revision: str | None = None, wanted: str = ""
) -> Rows:
    """The rows of `source`: a file or directory, a hub id, a `datasets.Dataset`, a list of dicts, another iterable of
    them, which is read to its end.

    `split`, `config` and `revision` are for Hugging Face datasets; a plain file has no splits, and a directory may have
    none. `wanted` is how a person has asked for this split: it must be there then.
    """
    source = source.rows if isinstance(source, PythonRows) else source
    path = Path(source).expanduser() if isinstance(source, (str, os.PathLike)) else None
    try:
        if path is None:
            rows = _rows_of_object(source, split, wanted=wanted)
        elif path.exists() and config is not None:
            raise _no_parts(str(source), f"config = {config!r}")
        elif path.is_dir():
            rows = _open_directory(path, split, wanted)
        elif path.is_file() and wanted:
            raise _no_parts(str(source), wanted)
        elif path.is_file():
            rows = _reader(path)(path)
        elif os.path.lexists(path):
            raise _not_a_file(path)
        elif isinstance(source, str) and is_hub_id(source):
            rows = _open_hub(source, split, config, revision)
        else:
            raise _missing_file(path)
    except (OSError, EOFError, zlib.error) as error:  # no permission, a name that is too long, a damaged .gz
        raise UserError(f"{source} cannot be read: {getattr(error, 'strerror', None) or one_line(error)}.") from error
    if len(rows) == 0:
        name = "the source" if path is None else source
        raise UserError(f"{name} has no rows. Give a source with at least one prompt.")
    return rows


def ending(path: Path) -> str:
    """What the name of a data file ends in, such as ".jsonl" and ".csv.gz"; "" for any other file."""
    whole = "".join(path.suffixes[-2:]).lower()
    last = path.suffix.lower()
    return whole if whole in PACKED else last if last in READERS else ""


def _reader(path: Path) -> Callable[[Path], Rows]:
    if not ending(path):
        raise UserError(f"{path} ends in {path.suffix or 'nothing'!r}; Cohort reads {_READABLE}.")
    return READERS[Path(ending(path)).stem if ending(path) in PACKED else ending(path)]


def _no_parts(name: str, asked: str) -> UserError:
    return UserError(f"{asked} chooses a part of a dataset, and {name} has no such parts. Remove it, or name a file.")


def _open_directory(path: Path, split: str, wanted: str) -> Rows:
    """A `datasets` directory (save_to_disk), or the data files of a plain one in the order of their names."""
    if any((path / mark).exists() for mark in ("dataset_info.json", "state.json", "dataset_dict.json")):
        import datasets

        return _rows_of_object(datasets.load_from_disk(str(path)), split, str(path), wanted)
    files = sorted(file for file in path.iterdir() if ending(file) and not file.is_dir())
    for file in files:
        if not file.is_file():  # a link to nothing
            raise _not_a_file(file)
    if not files:
        raise UserError(f"the directory {path.absolute()} holds no data file; Cohort reads {_READABLE}.")
    named = [file for file in files if _belongs(file, split)]
    if not named and (wanted or any(_belongs(file, other) for file in files for other in SPLITS)):
        raise UserError(
            f"the directory {path.absolute()} has no file for the split {split!r}; "
            f"it holds {', '.join(file.name for file in files)}."
        )
    parts = [_reader(file)(file) for file in named or files]
    return parts[0] if len(parts) == 1 else _one_after_another(parts)


def _belongs(file: Path, split: str) -> bool:
    """`train.jsonl` and `train-00000-of-00002.parquet` belong to the split `train`."""
    stem = file.name[: -len(ending(file))]
    return stem == split or stem.startswith((f"{split}-", f"{split}_"))


def is_hub_id(source: str) -> bool:
    """`owner/name`, where no directory `owner` is here and `name` does not end as a file does."""
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) or nearest(Path(source).suffix, EXTENSIONS):
        return False
    return not Path(source).parent.is_dir()


def _rows_of_object(source: Any, split: str, name: str = "the dataset", wanted: str = "") -> Rows:
    """Python objects: a `datasets.Dataset` or `DatasetDict`, or whatever gives dicts."""
    if isinstance(source, Mapping) and all(hasattr(part, "column_names") for part in source.values()):  # of splits
        if split not in source:
            raise UserError(f"{name} has no split {split!r}; it has {', '.join(map(repr, source))}.")
        return _rows_of_object(source[split], split, name)
    if wanted:
        raise _no_parts(name, wanted)
    if all(hasattr(source, name) for name in ("column_names", "features", "__len__")):
        # Arrow, memory-mapped
        get = lambda index: as_written(source[index])  # noqa: E731
        return table_rows(name, source.column_names, len(source), get, [*_telling_of_dataset(source)])
    stream = hasattr(source, "take") and hasattr(source, "column_names")  # it may have no end
    if stream or not isinstance(source, Iterable) or isinstance(source, (bytes, Mapping)):
        raise UserError(
            "data is a path, a hub id, or rows such as a datasets.Dataset or a list of dicts, not "
            f"{type(source).__name__}." + (" Make it a list first: list(source.take(10_000))." if stream else "")
        )
    rows = list(source)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping) or not all(isinstance(key, str) for key in row):
            raise UserError(
                f"row {number} of data is {shorten(row)}; every row is a dict from column names to values, so this is "
                f'not {type(source).__name__} of rows (of a pandas DataFrame: frame.to_dict("records"))'
            )
    return list_rows([dict(row) for row in rows], "the list")


def _telling_of_dataset(source: Any) -> Iterator[int]:
    """See `telling_of_table`; a batch at a time, so that memory stays flat."""
    before = 0
    for table in source.with_format("arrow").iter(10_000) if hasattr(source, "with_format") else ():
        yield from telling_of_table(table, before)
        before += table.num_rows


def _not_a_file(path: Path) -> UserError:
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return UserError(f"{path} is a link that leads in a circle. Mend the link, or name a file.")
    if path.is_symlink():
        return UserError(
            f"{path} is a link to {os.readlink(path)}, which does not exist. Mend the link, or name a file."
        )
    return UserError(f"{path} is neither a file nor a directory. Write its rows into a file first, and name that.")


def _missing_file(path: Path) -> UserError:
    where = path.parent.absolute()
    bare = not path.suffix and len(path.parts) == 1  # like the name of a source, or of a dataset without its owner
    looked = f"{path} does not exist" if path.is_absolute() else f"{path} does not exist in {where}"
    if not where.is_dir():
        return UserError(f"{path} does not exist: there is no directory {where}. Check the path.")
    if bare and path.name in SOURCES:
        return UserError(f"{looked}, and the source of that name makes prompts, not rows: name it as task.source.")
    here = [item.name for item in where.iterdir() if item.is_dir() or ending(item)]
    close = nearest(path.name, [*sorted(here), *(SOURCES if bare else [])])
    if close:
        return UserError(f"{looked}. Did you mean {close if close in SOURCES else path.parent / close}?")
    if bare:
        return UserError(f"{looked}. Give word_problems, a file, a directory, or a hub dataset as owner/name.")
    return UserError(f"{looked}. Check the path.")


def _open_hub(name: str, split: str, config: str | None, revision: str | None) -> Rows:
    """A dataset of the hub (or of the local cache), memory-mapped by the library."""
    import datasets
    import huggingface_hub as hub

    def refused(reason: str) -> UserError:
        return UserError(
            f"{name!r} is neither a file here nor a dataset that could be loaded from the hub ({reason}). "
            "Check the name, the split, the config and the network, or give a path."
        )

    try:
        hub.HfApi().dataset_info(name, revision=revision, timeout=HUB_PATIENCE_S)
        offline = False
    except hub.errors.RepositoryNotFoundError as error:
        raise refused("the hub has no public dataset of that name") from error
    except hub.errors.RevisionNotFoundError as error:
        raise refused(f"it has no revision {revision!r}") from error
    except Exception:  # no network: the library would retry for half a minute before it looks into the cache
        offline = True
    try:
        with _hub_offline() if offline else nullcontext():
            return _rows_of_object(datasets.load_dataset(name, config, split=split, revision=revision), split, name)
    except (OSError, ValueError, RuntimeError) as error:  # not in the cache, a wrong split or config
        reason = " ".join(str(error).split("\n")[0].split())
        raise refused("the hub cannot be reached, and it is not in the cache" if offline else reason) from error


@contextmanager
def _hub_offline() -> Iterator[None]:
    """Make the libraries look into their cache only."""
    import datasets
    import huggingface_hub as hub

    before = datasets.config.HF_HUB_OFFLINE, hub.constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, hub.constants.HF_HUB_OFFLINE = before


def _one_after_another(parts: Sequence[Rows]) -> Rows:
    starts = list(accumulate(map(len, parts), initial=0))

    def part_of(index: int) -> tuple[Rows, int]:
        part = bisect_right(starts, index) - 1
        return parts[part], index - starts[part]

    def get(index: int) -> Mapping[str, Any]:
        part, at = part_of(index)
        return part[at]

    def place(index: int) -> str:
        part, at = part_of(index)
        return part.place(at)

    columns = dict.fromkeys(column for part in parts for column in part.columns)
    # The first row of a part as well: another one may lack a column that the others have.
    telling = [
        start + at for start, part in zip(starts, parts, strict=False) for at in (0, *part.telling) if at < len(part)
    ]
    return Rows(tuple(columns), starts[-1], get, place, telling, lambda: chain.from_iterable(parts))
