"""What a detector is given, and what it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cohort.settings.monitor import ADAPTED, Monitor
from cohort.types import Group
from cohort.wording import counted

Line = Mapping[str, float | None]  # the numbers of one step, as metrics.jsonl has them
Severity = Literal["warning", "critical"]  # critical: steps like this teach nothing, or the wrong thing


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a detector saw: in a line with the numbers, what to look at, and which groups show it."""

    detector: str
    version: int
    step: int
    severity: Severity
    line: str
    look_at: str
    tickets: tuple[int, ...] = ()  # of groups of this step
    numbers: Mapping[str, float] = field(default_factory=dict)
    did: Mapping[str, Any] = field(default_factory=dict)  # by action what was done: tickets, settings, a step

    @property
    def said(self) -> str:
        """As a person reads it, in one line."""
        return f"step {self.step}, {self.detector}: {self.line}.{self.done} {self.look_at}"

    def went_back(self, step: int) -> bool:
        """Whether the run took earlier weights after this step."""
        return self.step == step and "roll_back" in self.did

    @property
    def done(self) -> str:
        """What was done about it, as a sentence; "" where nothing was."""
        said = ""
        if "quarantine" in self.did:
            said += (
                f" {counted(len(self.did['quarantine']), 'group')} of the step quarantined: nothing is learnt of it."
            )
        if "adapt" in self.did:
            changed = [f"{'.'.join(ADAPTED[name])} is now {value:g}" for name, value in self.did["adapt"].items()]
            said += f" {' and '.join(changed) or 'What it changes is at its bound already'}."
        if "roll_back" in self.did:
            said += f" The weights are those of step {self.did['roll_back']} again."
        return said


@dataclass(frozen=True, slots=True)
class Seen:
    """The last steps of a stage. What a line does not have, or has as null, is not among the values."""

    lines: Sequence[Line]  # of the window, the last one is the step's own
    begun: Sequence[Line]  # of the first steps
    evaluations: Sequence[Line]  # those with eval/ numbers: the first one, and the last two
    groups: Sequence[Group]  # of the step, those that could be scored

    @property
    def now(self) -> Line:
        """The numbers of the step itself."""
        return self.lines[-1]

    @property
    def step(self) -> int:
        """Its number."""
        return int(self.now["step"] or 0)

    def values(self, name: str, steps: int | None = None) -> list[float]:
        """What the last steps have under a name, the latest last; by default those of the whole window."""
        return known(self.lines[-steps:] if steps else self.lines, name)

    def mean(self, name: str, steps: int | None = None) -> float:
        """Their mean; NaN where there are none."""
        return mean(self.values(name, steps))

    def at_first(self, name: str) -> float:
        """The mean of the first steps, from which a run is judged; NaN where the window still lies in them."""
        first, last = self.begun[-1]["step"] or 0, self.lines[0]["step"] or 0
        return mean(known(self.begun, name)) if last > first else math.nan

    def tickets(self, holds: Callable[[Group], bool]) -> tuple[int, ...]:
        """The groups of the step for which something holds."""
        return tuple(group.ticket for group in self.groups if holds(group))


Found = tuple[str, str, tuple[int, ...], Mapping[str, float]]  # the line, what to look at, tickets, numbers
Look = Callable[[Seen, Monitor], Found | None]


@dataclass(frozen=True, slots=True)
class Detector:
    """A detector: its name and version, which goes up when the same numbers would be judged otherwise, how bad it is
    what it sees, and the function that looks. `of_groups`: it goes by the groups alone, before anything is learnt of
    them, and each group that it names shows by itself what is wrong.
    """

    name: str
    version: int
    severity: Severity
    look: Look
    of_groups: bool = False

    def __call__(self, seen: Seen, table: Monitor) -> Finding | None:
        """What it finds in this step."""
        found = self.look(seen, table)
        return None if found is None else Finding(self.name, self.version, seen.step, self.severity, *found)


def detector(version: int, severity: Severity = "warning", of_groups: bool = False) -> Callable[[Look], Detector]:
    """A function that looks, as the detector of its name."""
    return lambda look: Detector(look.__name__, version, severity, look, of_groups)


def known(lines: Sequence[Line], name: str) -> list[float]:
    """The values of a name that there are."""
    return [value for line in lines if (value := line.get(name)) is not None and math.isfinite(value)]


def mean(values: Sequence[float]) -> float:
    """Their mean; NaN for none."""
    return math.fsum(values) / len(values) if values else math.nan
