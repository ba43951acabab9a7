"""The protocol of a tracker, and what hands the numbers of every step to all of them.

metrics.jsonl is no tracker: a run that cannot write it stops. A tracker that fails or hangs is left out with a word,
and the run goes on. What it has missed is in metrics.jsonl, and is handed to it again: at the end of the run where it
had failed, and when the run is resumed.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

import orjson

from cohort.account.traces import rows_as_shown
from cohort.monitor.names import FIRST
from cohort.record.chain import CHAIN, read_lines
from cohort.record.entries import digest_of
from cohort.record.files import write_bytes
from cohort.record.metrics import read_metrics
from cohort.record.rollouts import read_rows
from cohort.settings import SINKS
from cohort.types import UserError
from cohort.wording import find_function, one_line

PATIENCE = 60.0  # seconds in which a tracker has to start, and to take one step
LAST_WORDS = 30.0  # seconds that the end of a run waits for it
BEHIND = (
    "trackers.json"  # in the directory of the stage: the last step that a tracker has, of those that lack later ones
)
ROWS = 64  # of one table of samples, at most


class Sink(Protocol):
    """Takes numbers somewhere. It is opened by a function of two arguments: the directory of the stage, and the last
    step that counts (-1 in a new run): what was written of later steps is written again. All of its methods are called
    in one thread that is its own. It may have two methods more: `begin(config)`, called first, with the recipe of the
    stage by dotted keys; and `samples(step, rows)`, every `run.show_group_every` steps, with rollouts as
    `record.rollouts.read_rows` gives them, and their reasoning as [record] traces says.
    """

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """The metrics of one step; step 0 is what was measured before the first."""
        ...

    def close(self) -> None:
        """Write out what is left."""
        ...


def library(name: str, tracker: str) -> Any:
    """The library of a tracker. Raises `UserError` where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        what = f"run.trackers names {tracker}, which is not installed: pip install 'cohort[{tracker}]'"
        raise UserError(what) from None


def curated(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers to look at first, under names that a tracker shows first."""
    for name in FIRST:
        if isinstance(value := metrics.get(name), int | float):
            yield f"0 overview/{name.replace('/', ' ')}", value


SAMPLED = ("ticket", "prompt", "answer", "text", "reward", "advantage", "finish", "disposition")


def sampled(rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """A table of rollouts: its headings, then a row for each."""
    return [list(SAMPLED), *([row.get(name) for name in SAMPLED] for row in rows)]


def identity(directory: Path) -> str:
    """A name for a run that no other has, and that is the same when it is resumed: its directory's and a digest of the
    beginning of its log.
    """
    for place in (directory, *directory.parents[:2]):  # a stage lies in stages/NAME of its run
        if (place / CHAIN).is_file():
            begun = digest_of(next(read_lines(place / CHAIN)))
            within = "" if place == directory else f"-{directory.name}"
            return f"{place.name}{within}-{begun[:8]}"
    return directory.name


class _Feed:
    """One tracker and the thread that works for it. `last` is the last step that it took; `traces`, how those of
    rollouts are shown to it.
    """

    def __init__(
        self, name: str, opens: Callable[[int], Sink], config: Mapping[str, Any], traces: str | None, last: int
    ):
        self.name, self._traces, self.last = name, traces, last
        self.error: Exception | None = None
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._since: float | None = None  # when the job that is being done was begun
        self._opens, self._config = opens, config
        self._sink: Sink
        self._jobs.put(self._open)
        self._thread = Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str:
        """Why it takes nothing any more; empty while it does."""
        if self.error is not None:
            return f"{type(self.error).__name__}: {one_line(self.error)}"
        since = self._since
        return f"it has not answered for {PATIENCE:g} s" if since and time.monotonic() - since > PATIENCE else ""

    def anew(self) -> _Feed:
        """The tracker opened once more, to go on behind the last step that it took."""
        return _Feed(self.name, self._opens, self._config, self._traces, self.last)

    def write(self, step: int, metrics: Mapping[str, Any], shard: Path | None = None) -> None:
        """Hand on the numbers of a step, and some of the rollouts in a file, if one is named."""
        self._jobs.put(lambda: self._write(step, metrics, shard))

    def started(self) -> bool:
        """Wait until it is open. Whether it is."""
        end = time.monotonic() + PATIENCE
        while not hasattr(self, "_sink") and self.error is None and time.monotonic() < end:
            time.sleep(0.002)
        return hasattr(self, "_sink")

    def close(self, patience: float) -> bool:
        """Let it finish. Whether it has, without trouble."""
        self._jobs.put(lambda: self._sink.close())
        self._jobs.put(None)
        self._thread.join(patience)
        return not self._thread.is_alive() and self.error is None

    def _open(self) -> None:
        sink = self._opens(self.last)
        if (begin := getattr(sink, "begin", None)) is not None:
            begin(self._config)
        self._sink = sink

    def _write(self, step: int, metrics: Mapping[str, Any], shard: Path | None) -> None:
        self._sink.write(step, metrics)
        if shard is not None and (samples := getattr(self._sink, "samples", None)) is not None:
            with suppress(UserError):  # a file that a step without groups did not write
                samples(step, rows_as_shown(read_rows(shard), self._traces)[:ROWS])
        self.last = step

    def _work(self) -> None:
        try:
            for job in iter(self._jobs.get, None):
                self._since = time.monotonic()
                job()
                self._since = None
        except Exception as error:  # a foreign library may raise anything, and it is not worth a run
            self.error = error


class Sinks:
    """All trackers of a stage. None of them can stop it or slow it: each has a thread of its own, and one that raises
    or hangs is named once and left out from then on.
    """

    def __init__(self, feeds: Iterable[_Feed], directory: Path, warn: Callable[[str], None]):
        self._feeds, self._left_out = list(feeds), list[_Feed]()
        self._directory, self._warn = directory, warn

    @staticmethod
    def open(
        names: Sequence[str],
        directory: Path,
        recorded: int,
        config: Mapping[str, Any],
        warn: Callable[[str], None],
        traces: str | None = None,
    ) -> Sinks:
        """The trackers of these names, each with what it lacks of the steps up to `recorded`. Raises `UserError` for
        one that there is not, or that does not start.
        """
        behind, feeds = _behind(directory), list[_Feed]()
        for name in names:
            opens = find_function(SINKS.get(name, name), "tracker")
            last = min(recorded, behind.get(name, recorded))
            feed = _Feed(name, partial(opens, directory), config, traces, last)
            if not feed.started():
                for other in feeds:
                    other.close(0)
                if isinstance(feed.error, UserError):
                    raise feed.error
                why = feed.trouble or f"it has not answered for {PATIENCE:g} s"
                raise UserError(
                    f"the tracker '{name}' does not start: {why}. Mend that, or take it out of run.trackers"
                )
            _catch_up(feed, directory, recorded)
            feeds.append(feed)
        return Sinks(feeds, directory, warn)

    def write(self, step: int, metrics: Mapping[str, Any], shard: Path | None = None) -> None:
        """Hand the metrics of one step to every tracker, and some of the rollouts in a file, if one is named; where
        nothing was measured there is nothing to hand on.
        """
        if metrics:
            for feed in self._feeds:
                feed.write(step, metrics, shard)
        for feed in [one for one in self._feeds if one.trouble]:
            self._leave_out(feed, feed.trouble)

    def close(self) -> None:
        """Let every tracker finish, and hand those that had failed what they missed."""
        for feed in list(self._feeds):
            if not feed.close(LAST_WORDS):
                self._leave_out(feed, feed.trouble or f"it has not finished in {LAST_WORDS:g} s")
        for feed in [one for one in self._left_out if one.error is not None]:
            again = feed.anew()
            _catch_up(again, self._directory)
            if again.close(LAST_WORDS):
                self._left_out.remove(feed)
        self._keep_behind()
        if self._left_out:
            lacking = ", ".join(f"'{feed.name}' after step {feed.last}" for feed in self._left_out)
            self._warn(f"not every step has reached the trackers: {lacking}; metrics.jsonl has all of them")

    def _leave_out(self, feed: _Feed, why: str) -> None:
        self._feeds.remove(feed)
        self._left_out.append(feed)
        self._keep_behind()
        self._warn(f"the tracker '{feed.name}' failed and is left out from here on: {why}")

    def _keep_behind(self) -> None:
        file = self._directory / BEHIND
        if self._left_out:
            write_bytes(file, orjson.dumps({feed.name: feed.last for feed in self._left_out}))
        else:
            file.unlink(missing_ok=True)


def _catch_up(feed: _Feed, directory: Path, until: int | None = None) -> None:
    """Hand on what metrics.jsonl has of the steps that a tracker lacks."""
    file = directory / "metrics.jsonl"
    for line in read_metrics(file) if file.is_file() else ():
        step = line.pop("step")
        if step > feed.last and (until is None or step <= until):
            feed.write(step, line)


def _behind(directory: Path) -> dict[str, int]:
    with suppress(OSError, orjson.JSONDecodeError):
        found = orjson.loads((directory / BEHIND).read_bytes())
        return {name: step for name, step in found.items() if isinstance(step, int)}
    return {}
