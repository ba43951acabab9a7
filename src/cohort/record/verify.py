"""Whether a run is as its record says: level 0, the form of the chain; level 1, its links, signatures and roots, and by
digest every file of the run. `tools/verify_run.py` does the same in one file that needs nothing of Cohort.

What a crash may leave is no difference: a last line that is torn; one shard, one line of metrics or one signature ahead
of its entry; a directory whose entry is there and which still waits beside its place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohort.record.chain import CHAIN, HEADS, read_lines
from cohort.record.entries import UNSIGNED, digest_of, parsed, problem
from cohort.record.files import beside
from cohort.record.leaves import LEAF, leaves
from cohort.record.manifest import EVALS, EVALUATIONS, digests_in, sha256_of
from cohort.record.merkle import Tree
from cohort.record.metrics import object_in
from cohort.record.report import Check, Report, Status
from cohort.record.trail import Files, StageTrail, Trail, check_signatures, read_trail
from cohort.types import UnreadableError
from cohort.wording import one_line

HIGHEST = 1  # what is looked at here; the levels above recompute
# Not of the record, or made from it.
FREE = {".lock", "rewards.log", "trackers.json", "record.json", "card.md", "card.html", "README.md", EVALUATIONS}
GONE = {"failed.txt"}  # goes when the run goes on
BATCH = 4096  # rows
MOST = 50  # failures of one check that are listed


def verify(run: Path, level: int = HIGHEST, *, key: Path | None = None, anchor: str = "") -> Report:
    """Check a run up to a level, 0 or 1. `key` is the file of the one key that is trusted, in the place of those that
    are known here; `anchor` is a head that was kept elsewhere, which must be one of this chain.

    Raises `UnreadableError` for a directory without a chain, and for one that a newer version has written.
    """
    checks = _Checks()
    try:
        trail = read_trail(run, checks.say, anchor)
        checks.done(0, "schema", f"{trail.size} entries have the fields and kinds that they must have")
        if level >= 1:
            _Comparison(run, trail, checks).all(key, anchor)
    except OSError as error:
        raise UnreadableError(f"{run} cannot be read: {one_line(error)}") from None
    return Report(str(run), min(level, HIGHEST), tuple(check for check in checks.found if check.level <= level))


class _Checks:
    """The checks so far; of one that fails very often only the first failures are listed."""

    def __init__(self) -> None:
        self.found: list[Check] = []
        self._failed: dict[str, int] = {}

    def say(self, level: int, name: str, status: Status, detail: str) -> None:
        if status == "failed":
            self._failed[name] = self._failed.get(name, 0) + 1
            if self._failed[name] > MOST:
                return
        self.found.append(Check(level, name, status, detail))

    def done(self, level: int, name: str, detail: str) -> None:
        """A check that has been made to its end: it holds, unless something of it has failed."""
        more = self._failed.get(name, 0) - MOST
        if more > 0:
            self.found.append(Check(level, name, "failed", f"and {more} more like these"))
        elif name not in self._failed:
            self.found.append(Check(level, name, "holds", detail))


class _Comparison:
    """The run on disk, beside its trail."""

    def __init__(self, run: Path, trail: Trail, checks: _Checks):
        self.run, self.trail, self.say, self.done = run, trail, checks.say, checks.done
        self._shards = self._rows = 0
        self._seen: set[str] = set()  # paths of shards
        self._ahead: dict[str, bytes] = {}  # by stage a line of metrics that is of a later step
        self._metrics = {name: read_lines(run / stage.place / "metrics.jsonl") for name, stage in trail.stages.items()}

    def all(self, key: Path | None, anchor: str) -> None:
        """Everything of level 1."""
        trail = self.trail
        if anchor:
            kept = f"the head {anchor} that was kept"
            if not trail.anchored:
                self._fail("anchor", f"{kept} is none of this chain: it was written anew, or is of another run")
            self.done(1, "anchor", f"{kept} is one of this chain")
        for name in (CHAIN, HEADS):
            if not _is_whole(self.run / name):
                self._pass_over("chain", f"{name} ends in a line that is torn: the run was stopped as it wrote it")
        self.done(1, "chain", f"every entry follows the one before it; the head is {trail.head}")
        check_signatures(self.run, trail, self.say, key)
        self.done(1, "signatures", f"{len(trail.signed)} entries are signed where they have to be, and all before them")
        for seq, line in enumerate(read_lines(self.run / CHAIN)):
            self._entry(seq, line)
        for name, stage in trail.stages.items():
            self._end_of_metrics(name, stage)
        self.done(
            1, "roots", f"{self._rows} rows in {self._shards} files of rollouts have the roots that were recorded"
        )
        self.done(1, "metrics", "every line of metrics.jsonl is as it was recorded, and as many rollouts were counted")
        self._unnamed_shards()
        for path, (digest, before, seq) in trail.named.items():
            if path in GONE and not (self.run / path).exists():
                continue
            is_last = seq == trail.size - 1  # it was announced; the run may have been stopped before it was written
            if is_last and before is not None and _sha256(self.run / path) == before:
                self._pass_over("files", f"{path} is as it was before entry {seq}: the run was stopped in between")
            else:
                self._same(path, digest, f"entry {seq}")
        for stage in trail.stages.values():
            self._directories(stage)
        others = sorted(self._others())
        if others:
            self._pass_over("files", f"not of the record: {', '.join(others[:10])}{' ...' * (len(others) > 10)}")
        self.done(1, "files", "every file of the run that the record names is as it was written")
        self._inputs()
        open_stages = [name for name, stage in trail.stages.items() if not stage.closed]
        if open_stages:
            self._pass_over("end", f"the run is unfinished: {', '.join(open_stages)} has no close")

    def _fail(self, name: str, detail: str) -> None:
        self.say(1, name, "failed", detail)

    def _pass_over(self, name: str, detail: str) -> None:
        self.say(1, name, "skipped", detail)

    def _entry(self, seq: int, line: bytes) -> None:
        """The shards and the line of metrics that one entry of a step or an evaluation names."""
        if b'"kind":"step"' not in line and b'"kind":"evaluation"' not in line:
            return
        try:
            entry = parsed(line)
        except ValueError:
            return
        if entry.get("kind") not in UNSIGNED or problem(entry):
            return
        metrics, name = entry["metrics"], entry["recipe"].get("stage", "")
        stage, step = self.trail.stages.get(name), metrics.get("step", 0)
        if stage is None or not stage.lives(seq, step):
            return
        counted = self._root(entry, step)
        if "sha256" in metrics:
            line = self._ahead.pop(name, b"") or next(self._metrics[name], b"")
            where = f"{_join(stage.place, 'metrics.jsonl')}: step {step}"
            if digest_of(line) != metrics["sha256"]:
                if later := _step(line) > step:
                    self._ahead[name] = line
                self._fail("metrics", f"{where}: its line is {'missing' if later or not line else 'another now'}")
            elif counted is not None:
                self._counts(where, counted, line)

    def _root(self, entry: Mapping[str, Any], step: int) -> tuple[int, int] | None:
        """Compare the shards of an entry, and count their groups and sampled tokens, where all is well."""
        tree, tickets, tokens, whole = Tree(), set[int](), 0, True
        for shard in entry["shards"]:
            path, where = shard["path"], f"{shard['path']} (step {step})"
            self._shards += 1
            self._seen.add(path)
            found = _sha256(self.run / path)
            wanted, before, by = self.trail.shards.get(path, (shard["sha256"], "", 0))
            if by == self.trail.size - 1 and found == (before or shard["sha256"]):
                self._pass_over("roots", f"{where} is as it was before entry {by}: that one was not carried out")
            elif found != wanted:
                whole = False
                self._fail(
                    "roots", f"{where} is missing" if found is None else f"{where} {self._difference(path, shard)}"
                )
                continue
            try:
                for table in _tables(self.run / path):
                    for leaf in leaves(table):
                        tree.add(leaf)
                    tickets.update(table["ticket"].to_pylist())
                    tokens += pc.sum(pc.list_flatten(table["mask"])).as_py() or 0
            except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
                whole = False
                self._fail("roots", f"{where} cannot be read as rollouts: {one_line(error)}")
        self._rows += tree.size
        if whole and (tree.size != entry["n"] or tree.root() != entry["merkle_root"]):
            self._fail("roots", f"entry {entry['seq']} (step {step}): its root is not that of its {tree.size} rollouts")
        return (len(tickets), tokens) if whole and entry["shards"] and entry["kind"] == "step" else None

    def _difference(self, path: str, shard: Mapping[str, Any]) -> str:
        """In which rows a file of rollouts differs, as its own column of leaves says."""
        try:
            tables = list(_tables(self.run / path))
            rows = sum(table.num_rows for table in tables)
            if rows != shard["rows"]:
                return f"is not as it was written: it has {rows} rows, and had {shard['rows']}"
            pairs = (pair for table in tables for pair in zip(leaves(table), table[LEAF].to_pylist(), strict=True))
            changed = [str(row) for row, (now, then) in enumerate(pairs) if now != then]
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            return f"is not as it was written, and cannot be read: {one_line(error)}"
        listed = f": row {', '.join(changed[:10])} has another content" if changed else ""
        return f"is not as it was written{listed}"

    def _counts(self, where: str, counted: tuple[int, int], line: bytes) -> None:
        said = parsed(line)
        for key, number in zip(("groups/sampled", "tokens/sampled"), counted, strict=True):
            if key in said and said[key] != number:
                self._fail("metrics", f"{where}: {key} is {said[key]}, and {number} are in its rollouts")

    def _end_of_metrics(self, name: str, stage: StageTrail) -> None:
        """What comes after the last line that has an entry: nothing, or what a stop left."""
        file = _join(stage.place, "metrics.jsonl")
        more = [digest_of(line) for line in (*filter(None, [self._ahead.get(name)]), *self._metrics[name])]
        torn = not _is_whole(self.run / file)
        if more and (stage.closed or (len(more) > 1 and not stage.lines.issuperset(more))):
            self._fail("metrics", f"{file} has {len(more)} lines that were not recorded")
        elif more or torn:
            if stage.closed:
                self._fail("metrics", f"{file} goes on after its last line")
            self._pass_over("metrics", f"{file} goes on after its last entry: the run was stopped as it wrote it")

    def _unnamed_shards(self) -> None:
        """Files of rollouts without an entry: one, of a stage that goes on, or those that it has given up."""
        unnamed = []
        for stage in self.trail.stages.values():
            log = _join(stage.place, "log")
            for path in (f"{log}/{name}" for name in _names(self.run / log) if name.endswith(".parquet")):
                if path in self._seen or (path in stage.leftover and _sha256(self.run / path) == stage.leftover[path]):
                    continue
                if stage.closed:
                    self._fail("files", f"{path} has no entry in {CHAIN}")
                else:
                    unnamed.append(path)
        if len(unnamed) > 1:
            self._fail(
                "files", f"{', '.join(sorted(unnamed)[:10])} have no entry in {CHAIN}, and a stop leaves one at most"
            )
        elif unnamed:
            self._pass_over("files", f"{unnamed[0]} has no entry in {CHAIN}: the run was stopped before it had")
        self._seen.update(unnamed)

    def _directories(self, stage: StageTrail) -> None:
        """The checkpoints and the final model of a stage."""
        base = _join(stage.place, "checkpoints")
        there = [f"{base}/{name}" for name in _names(self.run / base) if name.startswith("step-")]
        there += [final] if os.path.lexists(self.run / (final := _join(stage.place, "final"))) else []
        for path in there:
            if path not in stage.directories:
                self._fail("files", f"{path} has no entry in {CHAIN}")
        for path, files in stage.directories.items():
            if files.required or path in there:
                self._directory(path, files)

    def _directory(self, path: str, files: Files) -> None:
        found = _names_below(self.run / path)
        if files.seq == self.trail.size - 1 and found != files.digests.keys():
            waiting = beside(self.run / path, "tmp")
            if waiting.is_dir() and digests_in(waiting) == files.digests:
                self._pass_over("files", f"{path} waits beside its place: the run was stopped in between")
                return
        if not found:
            self._fail("files", f"{path} is missing")
            return
        for name in sorted(found - files.digests.keys()):
            self._fail("files", f"{path}/{name} was added")
        for name, digest in files.digests.items():
            self._same(f"{path}/{name}", digest, f"entry {files.seq}")

    def _same(self, path: str, digest: str, by: str) -> None:
        found = _sha256(self.run / path)
        if found != digest:
            self._fail("files", f"{path} is {'missing' if found is None else f'not as it was written ({by})'}")

    def _inputs(self) -> None:
        """What the run read from elsewhere, where it is still there."""
        there, away = Path(str(object_in(self.run / "environment.json").get("directory", ""))), 0
        for path, digest in self.trail.inputs.items():
            found = _sha256(there / path)
            away += found is None
            if found is not None and found != digest:
                self._fail("inputs", f"{path} is not what the run began with")
        if away:
            self._pass_over("inputs", f"{away} of {len(self.trail.inputs)} files that the run read are not here")
        self.done(1, "inputs", f"{len(self.trail.inputs) - away} files that the run read are what it began with")

    def _others(self) -> Iterator[str]:
        """The files of the run that the record does not speak of."""
        known = {CHAIN, HEADS, *self.trail.named, *self._seen}
        whole = set[str]()
        for stage in self.trail.stages.values():
            known |= {_join(stage.place, "metrics.jsonl"), *stage.leftover}
            whole |= stage.directories.keys()
        for folder, inside, names in os.walk(self.run):
            place = Path(folder).relative_to(self.run).as_posix()
            place = "" if place == "." else place
            left = {*whole, EVALS}
            inside[:] = [name for name in inside if _join(place, name) not in left and not _is_leftover(name)]
            for name in names:
                if name not in FREE and not _is_leftover(name) and _join(place, name) not in known:
                    yield _join(place, name)


def _tables(path: Path) -> Iterator[pa.Table]:
    """A file of rollouts in parts, so that its size does not matter."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH):
            yield pa.Table.from_batches([batch])


def _sha256(path: Path) -> str | None:
    """The digest of a file; None where there is none that can be read."""
    try:
        return sha256_of(path) if path.is_file() else None
    except (OSError, ValueError):
        return None


def _step(line: bytes) -> int:
    try:
        step = parsed(line).get("step")
    except ValueError:
        return -1
    return step if type(step) is int else -1


def _is_whole(file: Path) -> bool:
    """Whether a file of lines ends in the end of a line; so does one that is empty or not there."""
    if not file.is_file() or file.stat().st_size == 0:
        return True
    with file.open("rb") as handle:
        handle.seek(-1, os.SEEK_END)
        return handle.read() == b"\n"


def _names(directory: Path) -> Iterable[str]:
    return sorted(entry.name for entry in os.scandir(directory)) if directory.is_dir() else ()


def _names_below(directory: Path) -> set[str]:
    found = (path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if path.parts[0] not in FREE and not path.name.startswith(".")}


def _is_leftover(name: str) -> bool:
    """Whether a name is one that files have on their way to their place or from it."""
    return name.startswith(".") and name.endswith((".tmp", ".old"))


def _join(place: str, name: str) -> str:
    return f"{place}/{name}" if place else name
