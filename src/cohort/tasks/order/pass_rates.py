"""What the pass rates of prompts decide: the level of a curriculum, and which prompts rest.

    ladder = Ladder((1, 2, 3), Curriculum(raise_at=0.8, window=32))
    level = ladder.next()               # of the next prompt
    ladder.observe(level, 0.75)         # the pass rate of its group

Everything is a function of the observed pass rates in their order, so what is restored goes on exactly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cohort.settings import Adaptive, Curriculum
from cohort.types import UserError


class Ladder:
    """Where a source stands on its levels, from easy to hard."""

    def __init__(self, levels: Sequence[int], settings: Curriculum) -> None:
        if len(levels) < 2:
            raise UserError(f"a curriculum needs two levels or more to go through, not {list(levels)}.")
        if settings.lower_at is not None and settings.lower_at >= settings.raise_at:
            raise UserError(f"lower_at ({settings.lower_at}) must be below raise_at ({settings.raise_at}).")
        self.levels, self.settings = tuple(levels), settings
        self.rung = 0
        self.recent: deque[float] = deque(maxlen=settings.window)
        self.owed = 0.0  # prompts of easier levels that are due
        self.reviewed = 0

    @property
    def level(self) -> int:
        """The current level."""
        return self.levels[self.rung]

    def next(self) -> int:
        """The level of the next prompt: the current one, or an easier one that is due for review."""
        if self.rung:
            self.owed += self.settings.review
            if self.owed >= 1:
                self.owed -= 1
                self.reviewed += 1
                return self.levels[self.reviewed % self.rung]
        return self.level

    def observe(self, level: int, rate: float) -> None:
        """Count the pass rate of one prompt. A prompt of another level than the current one changes nothing."""
        if level != self.level:
            return
        self.recent.append(rate)
        if len(self.recent) < self.settings.window:
            return
        mean, lower = sum(self.recent) / len(self.recent), self.settings.lower_at
        if mean >= self.settings.raise_at and self.rung + 1 < len(self.levels):
            self.rung += 1
            self.recent.clear()
        elif lower is not None and mean <= lower and self.rung:
            self.rung -= 1
            self.recent.clear()

    def state(self) -> dict[str, Any]:
        """Everything to go on from, as JSON takes it."""
        return {"rung": self.rung, "recent": list(self.recent), "owed": self.owed, "reviewed": self.reviewed}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.rung, self.owed, self.reviewed = state["rung"], state["owed"], state["reviewed"]
        self.recent.extend(state["recent"])


@dataclass(frozen=True, slots=True)
class Visits:
    """The last visits of a prompt: solved (or hopeless) `times` in a row; it is asked again in epoch `until`."""

    solved: bool
    times: int
    until: int


class Rests:
    """Adaptive sampling: the prompts of a source that taught nothing on their last visits, by index.

    A group whose completions are all right or all wrong has no gradient. A prompt whose last groups were all right, or
    all wrong, rests for some epochs, and for twice as many each time that its next group is like them. A prompt with
    signal is asked in every epoch.
    """

    def __init__(self, settings: Adaptive) -> None:
        if settings.hopeless >= settings.solved or settings.rest > settings.longest_rest:
            raise UserError(
                f"adaptive sampling needs hopeless < solved and rest <= longest_rest, not hopeless = "
                f"{settings.hopeless}, solved = {settings.solved}, rest = {settings.rest} and longest_rest = "
                f"{settings.longest_rest}."
            )
        self.settings = settings
        self.visits: dict[int, Visits] = {}

    def resting(self, index: int, epoch: int) -> bool:
        """Whether a prompt sits out this epoch."""
        found = self.visits.get(index)
        return found is not None and epoch < found.until

    def observe(self, index: int, epoch: int, rate: float) -> None:
        """Count the pass rate of one visit, made in `epoch`."""
        solved = rate >= self.settings.solved
        if not solved and rate > self.settings.hopeless:
            self.visits.pop(index, None)
            return
        before = self.visits.get(index)
        times = before.times + 1 if before is not None and before.solved == solved else 1
        late = times - self.settings.after
        sits_out = min(self.settings.rest << min(late, 60), self.settings.longest_rest) if late >= 0 else 0
        self.visits[index] = Visits(solved, times, epoch + 1 + sits_out)

    def count(self, epoch: int) -> int:
        """How many prompts sit out this epoch."""
        return sum(epoch < visits.until for visits in self.visits.values())

    def state(self) -> dict[str, Any]:
        """Everything to go on from, as JSON takes it: columns rather than rows, because there may be many."""
        rows = [(index, visits.solved, visits.times, visits.until) for index, visits in sorted(self.visits.items())]
        return {name: [row[at] for row in rows] for at, name in enumerate(("index", "solved", "times", "until"))}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        rows = zip(state["solved"], state["times"], state["until"], strict=True)
        self.visits = {index: Visits(*row) for index, row in zip(state["index"], rows, strict=True)}
