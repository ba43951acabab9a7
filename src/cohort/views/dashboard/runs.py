"""A run as it lies on disk, read only, and again only where it has grown: nothing here can slow or stop who writes it.

A file that is missing, torn or damaged is empty here, and said in `problems`.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from cohort.account.traces import traces_of
from cohort.monitor.detectors.finding import Finding
from cohort.monitor.watcher import read_incidents
from cohort.recipe import Recipe
from cohort.recipe.loader import of_run
from cohort.record.chain import CHAIN
from cohort.record.metrics import object_in, objects
from cohort.settings import GROUPS, Stage
from cohort.types import UnreadableError, UserError
from cohort.views.cards.reading import seconds
from cohort.views.dashboard.index import Index
from cohort.wording import counted, one_line

Line = Mapping[str, Any]
QUIET = 120.0  # seconds without a word after which a run that is not finished is said to be silent
_CHECKPOINT = re.compile(r"step-(\d+)")
_SHARD = re.compile(r"(step|eval)-(\d+)(?:-(.+))?\.parquet")


@dataclass(frozen=True, slots=True)
class Shard:
    """A Parquet file of rollouts: of a training step, or of an evaluation `way`, such as greedy or SUITE-sampled."""

    path: Path
    step: int
    way: str  # "" for a training step


@dataclass(frozen=True, slots=True)
class State:
    """Whether a run goes on, in a word and a sentence."""

    word: Literal["finished", "running", "silent", "stopped", "empty"]
    says: str


class Tail:
    """A file of JSON objects, one a line, read on from where it was read last. A file that was replaced or cut, as a
    resumed run does, is read anew; a last line that is torn is left for the next time.
    """

    def __init__(self, path: Path):
        self.path = path
        self.lines: list[dict[str, Any]] = []
        self.cursor = (0, 0)  # inode and offset
        self._head = b""
        self._lock = threading.Lock()  # pages are made in threads

    def read(self) -> list[dict[str, Any]]:
        """All whole lines so far."""
        with self._lock:
            return self._read()

    def _read(self) -> list[dict[str, Any]]:
        try:
            with self.path.open("rb") as file:
                inode, offset = self.cursor
                here = self.path.stat()
                head = file.read(64)
                if here.st_ino != inode or here.st_size < offset or head[: len(self._head)] != self._head:
                    self.lines, offset = [], 0
                file.seek(offset)
                whole = file.read().rpartition(b"\n")[0]
        except OSError:
            self.lines, self.cursor, self._head = [], (0, 0), b""
            return self.lines
        if whole:
            self.lines = [*self.lines, *(line for _, line in objects(whole.splitlines()))]
            offset += len(whole) + 1
        self.cursor, self._head = (here.st_ino, offset), head[: min(64, offset)]
        return self.lines


class StageFiles:
    """One stage of a run: its numbers, its shards and what was found in it."""

    def __init__(self, run: RunFiles, name: str, kind: str, place: Path, table: Stage | None):
        self.run, self.name, self.kind, self.place, self.table = run, name, kind, place, table
        self._metrics = Tail(place / "metrics.jsonl")
        self._made: tuple[list[Any], list[dict[str, Any]], list[dict[str, Any]]] = ([], [], [])
        self.index = Index()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, in the order of steps; of one written twice the later one."""
        return self._seen()[1]

    def _seen(self) -> tuple[list[Any], list[dict[str, Any]], list[dict[str, Any]]]:
        """The lines as they were read, in order, and the evaluations among them: made again when there is a new one."""
        read = self._metrics.read()
        if read is not self._made[0]:
            by_step = {line["step"]: line for line in read if type(line.get("step")) is int}
            lines = [by_step[step] for step in sorted(by_step)]
            found = [(line["step"], {k[5:]: v for k, v in line.items() if k.startswith("eval/")}) for line in lines]
            self._made = (read, lines, [{"step": step, **numbers} for step, numbers in found if numbers])
        return self._made

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The training steps among them."""
        return [line for line in self.lines if line["step"] > 0]

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """What was measured on held-out problems, and after which step; names without `eval/`."""
        return self._seen()[2]

    @property
    def shards(self) -> list[Shard]:
        """The files of training steps, in order."""
        return self._shards("step")

    @property
    def evaluated(self) -> list[Shard]:
        """The files of evaluations, in order."""
        return self._shards("eval")

    def shard(self, step: int, way: str = "") -> Shard:
        """That of one step. Raises `UserError` where there is none."""
        prefix, end = ("eval", f"-{way}") if way else ("step", "")
        path = self.place / "log" / f"{prefix}-{step:06d}{end}.parquet"
        if path.parent != self.place / "log" or not path.is_file():
            raise UserError(f"step {step} of stage {self.name} has no recorded {'answers' if way else 'rollouts'}")
        return Shard(path, step, way)

    def _shards(self, of: str) -> list[Shard]:
        log = self.place / "log"
        try:
            names = os.listdir(log)
        except OSError:
            return []
        matches = [match for name in names if name.startswith(of) and (match := _SHARD.fullmatch(name))]
        found = [Shard(log / m[0], int(m[2]), m[3] or "") for m in matches if (of == "eval") == bool(m[3])]
        return sorted(found, key=lambda shard: (shard.step, shard.way))

    @property
    def replayable(self) -> list[int]:
        """The steps before which the policy is stored: the first, and those after a checkpoint."""
        names = (match[1] for place in self.place.glob("checkpoints/*") if (match := _CHECKPOINT.fullmatch(place.name)))
        after = {1, *(int(name) + 1 for name in names)} if self.kind in GROUPS else set()
        return [shard.step for shard in self.shards if shard.step in after]

    @property
    def findings(self) -> list[Finding]:
        """What detectors have said; none where their file is damaged, which is a problem of the run."""
        try:
            return read_incidents(self.place)
        except (UserError, OSError):
            return []

    @property
    def kept(self) -> int | None:
        """The step whose weights are kept, where one was chosen."""
        for entry in reversed(self.run.chain):
            policy = entry.get("policy") or {}
            if entry.get("kind") in ("checkpoint", "close") and entry.get("recipe", {}).get("stage") == self.name:
                chosen = policy.get("chosen") if isinstance(policy, dict) else None
                return chosen["step"] if chosen else None
        return None

    @property
    def planned(self) -> int | None:
        """How many steps it shall have."""
        return self.table.run.steps if self.table is not None else None

    @property
    def models(self) -> list[Path]:
        """Where its tokenizer may lie, the likeliest first."""
        own = self.run.stages
        places = [self.place, *(one.place for one in reversed(own))]
        found = [place / "final" for place in places]
        found += [one for place in places for one in sorted((place / "checkpoints").glob("step-*"), reverse=True)[:2]]
        model = self.table.policy.model if self.table is not None else None
        return found + ([Path(model)] if isinstance(model, str) and Path(model).is_dir() else [])


class RunFiles:
    """A run: its stages, its record, its chain. Raises `UnreadableError` for what is none."""

    def __init__(self, directory: Path, name: str = ""):
        self.directory = directory
        self.problems: list[str] = []
        of_run(directory)
        self._chain = Tail(directory / CHAIN)
        self.name = name or directory.name

    @cached_property
    def recipe(self) -> Recipe | None:
        """The resolved recipe; None where it cannot be read, which `problems` says."""
        try:
            return Recipe.load(self.directory / "recipe.toml")
        except (UserError, OSError) as error:
            self.problems.append(f"recipe.toml cannot be read: {one_line(error)}")
            return None

    @cached_property
    def traces(self) -> str:
        """How reasoning is shown ([record] traces); where the recipe cannot be read it is left out."""
        try:
            return traces_of(self.directory) or "exposed"
        except (UnreadableError, OSError):
            return "filtered"

    @cached_property
    def stages(self) -> list[StageFiles]:
        """Its stages, in order."""
        tables: list[tuple[str, str, Stage | None]]
        if self.recipe is not None:
            tables = [(one.name, one.kind, one) for one in self.recipe.stages]
        else:
            tables = [(name, kind, None) for name, kind in self._named()]
        last = len(tables) - 1
        return [
            StageFiles(self, name, kind, self.directory if i == last else self.directory / "stages" / name, table)
            for i, (name, kind, table) in enumerate(tables)
        ]

    def _named(self) -> list[tuple[str, str]]:
        """Stages as far as a recipe says that does not load, else as their directories do."""
        with contextlib.suppress(OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
            read = tomllib.loads((self.directory / "recipe.toml").read_text("utf-8"))
            stages = [one for one in read.get("stage", [read]) if isinstance(one, dict)]
            kinds = [str(one.get("kind", "grpo")) for one in stages]
            names = [str(one.get("name", kind)) for one, kind in zip(stages, kinds, strict=True)]
            if all(re.fullmatch(r"[\w.-]+", name) and name not in (".", "..") for name in names):
                return list(zip(names, kinds, strict=True))
        return [*((place.name, "") for place in sorted((self.directory / "stages").glob("*"))), ("last", "")]

    def stage(self, number: int) -> StageFiles:
        """One of its stages. Raises `UserError` where there is none of this number."""
        if not 0 <= number < len(self.stages):
            raise UserError(f"{self.name} has {counted(len(self.stages), 'stage')}, numbered from 0")
        return self.stages[number]

    @property
    def latest(self) -> int:
        """The number of the stage to look at first: the last one that has begun to learn from groups, else the last
        one that has begun.
        """
        begun = [i for i, one in enumerate(self.stages) if one.lines]
        with_groups = [i for i in begun if self.stages[i].shards]
        return (with_groups or begun or [0])[-1]

    @property
    def chain(self) -> list[dict[str, Any]]:
        """The entries of the log."""
        return self._chain.read()

    def inside(self, name: str, *keys: str) -> dict[str, Any]:
        """The JSON object in a file of the run, such as record.json, or under keys of it; empty where there is none."""
        return object_in(self.directory / name, *keys)

    @property
    def state(self) -> State:
        """Whether it goes on, as far as its files say."""
        if not self.directory.is_dir():
            return State("stopped", "The directory of this run is gone.")
        if self.stages and (self.stages[-1].place / "final").is_dir():
            return State("finished", "Every stage is done.")
        with contextlib.suppress(OSError):
            why = " ".join((self.directory / "failed.txt").read_text("utf-8", "replace").split())
            return State("stopped", f"It was stopped: {why[:300]}")
        latest = self.stages[self.latest]
        steps = latest.steps
        if not steps:
            return State("empty", "No step is done yet.")
        of = f" of {latest.planned:,}" if latest.planned else ""
        where = f"Step {steps[-1]['step']:,}{of}" + (f" of stage {latest.name}" if len(self.stages) > 1 else "")
        silent = time.time() - self.last_word
        slow = 5 * max((line.get("time/step_s") or 0.0) for line in steps[-20:])
        if silent < max(QUIET, slow):
            return State("running", f"{where}.")
        return State("silent", f"{where}; nothing was written for {seconds(silent)}.")

    @property
    def last_word(self) -> float:
        """When something of the run was last written, in seconds of the clock."""
        places = [path for one in self.stages for path in (one.place / "metrics.jsonl", one.place / "log")]
        times = []
        for path in (self.directory / CHAIN, *places):
            with contextlib.suppress(OSError):
                times.append(path.stat().st_mtime)
        return max(times, default=0.0)

    @property
    def cursor(self) -> str:
        """Changes whenever something of the run does: what the stream of events sends."""
        parts = []
        for one in self.stages:
            for path in (one.place / "metrics.jsonl", one.place / "log", one.place / "log/incidents.jsonl"):
                with contextlib.suppress(OSError):
                    stat = path.stat()
                    parts.append(f"{stat.st_mtime_ns:x}.{stat.st_size:x}")
        return "-".join(parts) + f"-{self.state.word}"


def open_runs(places: Sequence[Path]) -> list[RunFiles]:
    """Runs that are called apart: those of one name by the end of their path."""
    whole = [place.resolve() for place in dict.fromkeys(places)]
    names = [place.name for place in whole]
    return [
        RunFiles(place, place.name if names.count(place.name) == 1 else f"{place.parent.name}/{place.name}")
        for place in whole
    ]
