"""Adaptive sampling: prompts that teach nothing rest for a while.

A group whose completions are all right or all wrong has no gradient. A prompt whose last groups were all right, or all
wrong, rests for some epochs, and for twice as many each time that its next group is like them. A prompt with signal is
asked in every epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cohort.settings import Adaptive
from cohort.types import UserError

__all__ = ["Rests"]


@dataclass(frozen=True, slots=True)
class Visits:
    """The last visits of a prompt: solved (or hopeless) `times` in a row; it is asked again in epoch `until`."""

    solved: bool
    times: int
    until: int


class Rests:
    """The prompts of a source that had no signal on their last visits, by index."""

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
        items = sorted(self.visits.items())
        return {
            "index": [index for index, _ in items],
            "solved": [visits.solved for _, visits in items],
            "times": [visits.times for _, visits in items],
            "until": [visits.until for _, visits in items],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        columns = (state["index"], state["solved"], state["times"], state["until"])
        self.visits = {
            int(index): Visits(bool(solved), int(times), int(until))
            for index, solved, times, until in zip(*columns, strict=True)
        }
