"""A curriculum: levels that rise with the success rate.

    ladder = Ladder((1, 2, 3), Curriculum(raise_at=0.8, window=32))
    level = ladder.next()               # of the next prompt
    ladder.observe(level, 0.75)         # the pass rate of its group

Everything is a function of the observed pass rates in their order, so a restored ladder goes on exactly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from cohort.settings import Curriculum
from cohort.types import UserError

__all__ = ["Ladder"]


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
            self._move(1)
        elif lower is not None and mean <= lower and self.rung:
            self._move(-1)

    def _move(self, by: int) -> None:
        self.rung += by
        self.recent.clear()

    def state(self) -> dict[str, Any]:
        """Everything to go on from, as JSON takes it."""
        return {"rung": self.rung, "recent": list(self.recent), "owed": self.owed, "reviewed": self.reviewed}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.rung, self.owed, self.reviewed = int(state["rung"]), float(state["owed"]), int(state["reviewed"])
        self.recent = deque(map(float, state["recent"]), maxlen=self.settings.window)
