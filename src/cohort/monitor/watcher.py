"""What the detectors find in a stage, step by step, and which of it is worth saying."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import orjson

from cohort.monitor.behaviour import behaviour
from cohort.monitor.detectors.finding import Detector, Finding, Line, Seen
from cohort.record.metrics import read_metrics
from cohort.record.rollouts import read_groups
from cohort.settings.monitor import DETECTORS, Monitor
from cohort.types import Group, UserError
from cohort.wording import find

INCIDENTS = "incidents.jsonl"  # in log/
BEGIN = 5  # steps that say how it was at first
LEAST = 6  # steps that are looked back on however short the window is: with fewer some detectors could never speak


def detectors() -> list[Detector]:
    """All detectors, in the order in which they are asked."""
    return [find(where, "detector") for where in DETECTORS.values()]


class Watcher:
    """Sees the steps of a stage in their order. All that it knows is on disk: a run that goes on gives it the `lines`
    of metrics.jsonl and what was `found` already, and it finds what it would have found. What is done about a finding,
    `decide` says, which gets those before it.
    """

    def __init__(
        self,
        table: Monitor,
        lines: Iterable[Line] = (),
        found: Iterable[Finding] = (),
        decide: Callable[[Sequence[Finding], Finding], Finding] = lambda _, one: one,
    ):
        self.found, self._decide = list(found), decide
        self._table, self._detectors = table, detectors()
        self._screened: dict[str, Finding | None] = {}  # what `screen` has found in the next step, by detector
        self.screens = [one for one in self._detectors if table.action_of(one.name) == "quarantine"]
        self._lines: deque[Line] = deque(maxlen=max(table.window, LEAST))
        self._begun: list[Line] = []
        self._evaluations: list[Line] = []
        for line in lines:
            self._take(line)

    def screen(self, line: Line, kept: Sequence[Group], left_out: Sequence[Group]) -> set[int]:
        """The tickets of the groups of the next step, of those that are `kept`, that must not be learnt from. `line`
        has the numbers of the groups alone. Every step is asked, whether or not the last one had such groups.
        """
        lines = (*self._lines, line)[-max(self._table.window, LEAST) :]
        seen = Seen(lines, (*self._begun, line)[:BEGIN], tuple(self._evaluations), _scored((*kept, *left_out)))
        there = {group.ticket for group in kept}
        for one in self.screens:
            found = one(seen, self._table)
            did = {"quarantine": [ticket for ticket in found.tickets if ticket in there]} if found else {}
            self._screened[one.name] = found and replace(found, did=did)
        return {ticket for one in self._screened.values() if one for ticket in one.did["quarantine"]}

    def see(self, line: Line, groups: Iterable[Group] = ()) -> list[Finding]:
        """What is to be said of the next step, with the groups that it sampled; of each detector once in a window, but
        for what was done about groups: that is said of every step.
        """
        if not self._take(line):
            return []
        seen = Seen(tuple(self._lines), tuple(self._begun), tuple(self._evaluations), _scored(groups))
        said = {one.detector for one in self.found if seen.step - one.step < self._table.window}
        silent = {name for name in said if self._table.action_of(name) != "roll_back"}  # lost numbers never wait
        found: list[Finding] = []
        for one in self._detectors:
            if one.name in self._screened:
                finding = self._screened.pop(one.name)
            else:
                finding = None if one.name in silent else one(seen, self._table)
            if finding:
                found.append(self._decide([*self.found, *found], finding))
        self.found += found
        return found

    def _take(self, line: Line) -> bool:
        """Note a line; whether it is of a step, and not of an evaluation before the first one alone."""
        if any(name.startswith("eval/") for name in line):
            self._evaluations = [*self._evaluations[:1], *self._evaluations[1:][-1:], line]
        if all(name == "step" or name.startswith("eval/") for name in line):
            return False
        self._lines.append(line)
        if len(self._begun) < BEGIN:
            self._begun.append(line)
        return True


def _scored(groups: Iterable[Group]) -> list[Group]:
    return sorted((group for group in groups if group.error is None), key=lambda group: group.ticket)


def detect(stage: Path, table: Monitor) -> Iterator[Finding]:
    """What the detectors find in a stage that was recorded, from its directory: metrics.jsonl and log/*.parquet. It is
    what they have said while it ran, or would have with this table. Groups whose texts were erased are not seen.
    """
    watcher = Watcher(table)
    for line in read_metrics(stage / "metrics.jsonl"):
        groups: Sequence[Group] = ()
        shard = stage / "log" / f"step-{line['step']:06d}.parquet"
        if shard.exists():
            try:
                groups = read_groups(shard)
            except UserError:
                groups = ()
        if groups and "groups/pass_rate" not in line:  # written before there was such a number
            line = behaviour(groups) | line
        yield from watcher.see(line, groups)


def lines_of(findings: Iterable[Finding]) -> bytes:
    """Findings as lines of log/incidents.jsonl."""
    return b"".join(orjson.dumps(asdict(one), option=orjson.OPT_APPEND_NEWLINE) for one in findings)


def read_incidents(stage: Path, until: int | None = None) -> list[Finding]:
    """The findings of a stage up to a step, as its log/incidents.jsonl has them; without one there are none. Raises
    `UserError` for one that is damaged.
    """
    path = stage / "log" / INCIDENTS
    lines = path.read_bytes().splitlines() if path.exists() else []
    try:
        found = [Finding(**{**one, "tickets": tuple(one["tickets"])}) for one in map(orjson.loads, lines)]
    except (ValueError, TypeError, KeyError):
        raise UserError(
            f"{path} is damaged: restore it from a copy; `cohort record verify` says what else is"
        ) from None
    return [one for one in found if until is None or one.step <= until]
