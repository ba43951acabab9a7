"""The small columns of every rollout of a stage in memory, each shard read once: what search and diagnostics go by."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import regex
from numpy.typing import NDArray

from cohort.account.tally import true_in
from cohort.account.traces import rows_as_shown
from cohort.record.reading import PLAIN, by_reward
from cohort.record.where import names_in, selection
from cohort.types import RIGHT, UserError
from cohort.wording import one_line

if TYPE_CHECKING:
    from cohort.views.dashboard.runs import Shard

Columns = Mapping[str, Any]
_SMALL = ("step", "ticket", "member", "reward", "accuracy", "advantage", "finish", "version", "disposition")
_READ = (*_SMALL, "prompt_id", "mask", "scores", "labels")
_WORDS = ("finish", "disposition", "prompt_id", "scores", "labels")  # kept as numbers with a dictionary
_LATE = ("prompt", "answer", "text", "error", "prompt_tokens", "turns")  # read for a condition that names them
SECONDS = 2.0  # that one search may take
BLOCK = 64  # steps that are looked at together
WORKERS = min(8, os.cpu_count() or 1)
MOST = 100  # hits that are shown


@dataclass(frozen=True, slots=True)
class Hit:
    """A rollout that was found, and how many more of its group have the very same text."""

    step: int
    ticket: int
    member: int
    reward: float | None
    accuracy: float | None
    length: int
    finish: str
    text: str
    more: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found: the newest first, in how many steps it looked, and whether it had the time for all."""

    hits: tuple[Hit, ...]
    steps: int
    of: int
    seconds: float
    whole: bool


class Index:
    """Grows with the shards of a stage; those that were replaced are read again, those that are gone are left out."""

    def __init__(self) -> None:
        self._tables: dict[Path, tuple[tuple[int, int], pa.Table]] = {}
        self._whole: tuple[tuple[tuple[int, int], ...], pa.Table] | None = None
        self._lock = threading.Lock()

    def table(self, shards: Sequence[Shard]) -> pa.Table:
        """A row a rollout, in the order of steps: `_SMALL`, `prompt_id`, `length`, `scores` and `labels`."""
        with self._lock:
            stamps = {shard.path: _stamp(shard.path) for shard in shards}
            known = {path: of for path, of in self._tables.items() if stamps.get(path) == of[0]}
            fresh = [path for path in stamps if path not in known]
            with ThreadPoolExecutor(WORKERS) as pool:
                read = dict(zip(fresh, pool.map(_small, fresh), strict=True))
            both = {path: (stamp, known[path][1] if path in known else read[path]) for path, stamp in stamps.items()}
            self._tables = {path: (stamp, of) for path, (stamp, of) in both.items() if of is not None}
            key = tuple(stamp for stamp, _ in self._tables.values())
            if self._whole is None or self._whole[0] != key:
                tables = [table for _, table in self._tables.values()]
                whole = pa.concat_tables(tables).unify_dictionaries().combine_chunks() if tables else _EMPTY
                self._whole = (key, whole)
            return self._whole[1]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


def _small(path: Path) -> pa.Table | None:
    """The small columns of a shard; None for one that is damaged, or gone since."""
    try:
        read = pq.read_table(path, columns=list(_READ), read_dictionary=list(_WORDS))
        read = read.append_column("length", pa.array(true_in(read["mask"]), pa.int32())).drop_columns(["mask"])
        return read.filter(pc.greater_equal(read["member"], 0)).cast(_SCHEMA)
    except (pa.ArrowException, OSError, KeyError):
        return None


_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
_TYPES = {"step": pa.int64(), "ticket": pa.int64(), "member": pa.int32(), "version": pa.int64()}
_SCHEMA = pa.schema(
    [(name, _TYPES.get(name, _DICTIONARY if name in _WORDS else pa.float64())) for name in _SMALL]
    + [("prompt_id", _DICTIONARY), ("scores", _DICTIONARY), ("labels", _DICTIONARY), ("length", pa.int32())]
)
_EMPTY = _SCHEMA.empty_table()


def pass_rates(table: pa.Table, *by: str) -> pa.Table:
    """Groups by these columns, and as `right_mean` the share of their completions that are right, of those that a score
    applies to.
    """
    accuracy = table["accuracy"].to_numpy()
    right = table.append_column("right", pa.array((accuracy >= RIGHT).astype(float)))
    return right.filter(pa.array(np.isfinite(accuracy))).group_by(list(by)).aggregate([("right", "mean")])


def reward_columns(table: pa.Table) -> dict[str, Any]:
    """Score and label columns under the names that a condition calls them: each different JSON text is read once."""
    if not len(table):
        return {}
    columns: dict[str, Any] = {}
    for source, of in (("scores", lambda read: by_reward(read, {})), ("labels", lambda read: by_reward({}, read))):
        words = table[source].combine_chunks()
        words = words.chunk(0) if isinstance(words, pa.ChunkedArray) else words
        read = [of(orjson.loads(text)) if text else {} for text in words.dictionary.to_pylist()]
        for name in dict.fromkeys(name for one in read for name in one):
            try:
                columns[name] = pa.array([one.get(name) for one in read]).take(words.indices)
            except pa.ArrowException:  # a reward that scores a number here and a text there
                continue
    return columns


def columns_of(table: pa.Table) -> dict[str, Any]:
    """What a condition may name without reading texts."""
    plain = {name: table[name] for name in (*_SMALL, "length")}
    return {**plain, "tokens": table["length"], **reward_columns(table)}


def search(
    index: Index,
    shards: Sequence[Shard],
    *,
    where: str = "",
    text: str = "",
    is_regex: bool = False,
    limit: int = MOST,
    traces: str = "exposed",
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Found:
    """Completions for which a condition of `record.where` holds and whose text has `text` in it, the newest first. A
    regular expression is RE2's, which takes linear time, or else one that is given up after the time of the search.
    Reasoning that is not shown (`traces`) is not found. Raises `UserError` for a condition or an expression that is
    none.
    """
    began = clock()
    table = index.table(shards)
    columns = columns_of(table)
    named = names_in(where) if where else set[str]()
    late = {name for name in named if name in _LATE}
    holds = selection(where) if where else None
    unknown = named - set(columns) - set(_LATE)
    if holds and unknown and len(table):
        holds({name: pa.nulls(1) for name in (*PLAIN, *columns)})  # which says what there is
    picked = holds(columns) if holds and not late and len(table) else np.ones(len(table), bool)
    until = clock() + seconds  # what the first search reads of all rollouts does not count
    matches = _matcher(text, is_regex, until, clock) if text else None
    steps = table["step"].to_numpy()
    by_step = {shard.step: shard for shard in shards}
    wanted = np.unique(steps[picked])[::-1]
    hits: list[Hit] = []
    looked = 0

    def look(step: int) -> list[Hit]:
        low, high = (int(end) for end in np.searchsorted(steps, [step, step + 1]))
        here = {name: of.slice(low, high - low) for name, of in columns.items()} if late else {}
        rows = table.slice(low, high - low)
        return _in_shard(by_step[step], rows, picked[low:high], here, holds if late else None, matches, traces)

    with ThreadPoolExecutor(WORKERS) as pool:
        while looked < len(wanted) and len(hits) < limit and (not looked or clock() <= until):
            some = wanted[looked : looked + BLOCK].tolist()
            hits += [hit for found in pool.map(look, some) for hit in found]
            looked += len(some)
    return Found(tuple(hits[:limit]), looked, len(wanted), clock() - began, looked == len(wanted))


def _in_shard(
    shard: Shard, table: pa.Table, picked: NDArray[np.bool_], columns: Columns, holds: Any, matches: Any, traces: str
) -> list[Hit]:
    """The hits of one step, of whose rows `table`, `picked` and `columns` are."""
    wanted = {"text", *(_LATE if holds else ()), *(("turns",) if traces != "exposed" else ())}
    try:
        with pq.ParquetFile(shard.path) as file:
            gaps = file.metadata.num_rows != len(table)  # a group that failed has a row without a completion
            read = file.read(columns=[*sorted(wanted), *(["member"] if gaps else [])], use_threads=False)
    except (pa.ArrowException, OSError, KeyError):
        return []
    if gaps:
        read = read.filter(pc.greater_equal(read["member"], 0))
    if len(read) != len(table):  # written again since
        return []
    if traces != "exposed":
        texts = [row["text"] for row in rows_as_shown(read.select(["text", "turns"]).to_pylist(), traces)]
        read = read.set_column(read.schema.get_field_index("text"), "text", pa.array(texts, pa.string()))
    keep = picked.copy()
    if holds:
        late = {name: read[name] for name in _LATE if name not in ("prompt_tokens", "turns")}
        late["prompt_tokens"] = pc.list_value_length(read["prompt_tokens"])
        late["turns"] = pa.array([len(orjson.loads(one)) if one else 0 for one in read["turns"].to_pylist()])
        keep &= holds({**columns, **late})
    if matches and keep.any():
        at = np.flatnonzero(keep)
        keep[at] = matches(read["text"] if keep.all() else read["text"].take(pa.array(at)))
    if not keep.any():
        return []
    at = np.flatnonzero(keep)[:MOST]
    numbers = table.select(["step", "ticket", "member", "reward", "accuracy", "length", "finish"]).take(pa.array(at))
    texts = read["text"].take(pa.array(at)).to_pylist()
    rows = zip(numbers.to_pylist(), texts, strict=True)
    alike: dict[tuple[int, str | None], list[Any]] = {}
    for row, text in rows:
        alike.setdefault((row["ticket"], text), []).append(row)
    return [
        Hit(**of[0] | {"finish": of[0]["finish"] or "", "text": text or "", "more": len(of) - 1})
        for (_, text), of in alike.items()
    ]


def _matcher(text: str, is_regex: bool, until: float, clock: Callable[[], float]) -> Callable[[Any], NDArray[np.bool_]]:
    if not is_regex:
        return lambda column: _plain(pc.match_substring(column, text, ignore_case=True))
    try:
        pc.match_substring_regex(pa.array([""]), text)
        return lambda column: _plain(pc.match_substring_regex(column, text))
    except pa.ArrowException:  # RE2 has no such thing: a look-ahead, or it is no expression
        pass
    try:
        pattern = regex.compile(text)
    except (regex.error, RecursionError, OverflowError) as error:
        raise UserError(f"{text!r} is no regular expression: {one_line(error)}") from None

    def slow(column: Any) -> NDArray[np.bool_]:
        found = []
        for one in column.to_pylist():
            try:
                left = until - clock()
                found.append(left > 0 and pattern.search(one or "", timeout=left) is not None)
            except TimeoutError:
                found.append(False)
        return np.array(found, bool)

    return slow


def _plain(column: Any) -> NDArray[np.bool_]:
    filled = pc.fill_null(column, False)
    return np.asarray(
        filled.to_numpy(zero_copy_only=False) if isinstance(filled, pa.Array) else filled.to_numpy(), bool
    )
