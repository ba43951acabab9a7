"""Several sources as one, each with a weight that may change by step, a curriculum over levels, adaptive sampling.

A `Mixture` is the prompts; which one comes next is decided by a `Selection`. Every source at every level is an arm, and
prompt number `i` of a mixture of K arms is prompt `i // K` of arm `i % K`, so one number still says everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cohort.tasks.sources.opening import OpenSource
from cohort.types import Prompt, UserError

__all__ = ["HeldOut", "Mixture", "read_weights", "weight_at"]

Weights = tuple[tuple[int, float], ...]  # (from this step on, weight), steps ascending


class Mixture:
    """The training prompts of several sources."""

    size: int | None = None

    def __init__(self, sources: Sequence[OpenSource]) -> None:
        self.sources = tuple(sources)
        self.arms = [(number, level) for number, source in enumerate(self.sources) for level in source.levels]

    def __getitem__(self, index: int) -> Prompt:
        """The prompt that `place` gives the number `index`."""
        source, level, within = self.origin(index)
        return self.sources[source].prompt(level, within)

    def place(self, source: int, level: int | None, index: int) -> int:
        """The number of prompt `index` of a source and level."""
        return index * len(self.arms) + self.arms.index((source, level))

    def ends(self) -> Iterator[int]:
        """The numbers of all prompts of the sources that have an end."""
        for number, source in enumerate(self.sources):
            for index in range(source.train.size or 0):
                yield self.place(number, None, index)

    def origin(self, index: int) -> tuple[int, int | None, int]:
        """(source, level, index in it): the reverse of `place`."""
        within, arm = divmod(index, len(self.arms))
        return (*self.arms[arm], within)


class HeldOut:
    """The held-out prompts of several sources in turns, so that the first N have a fair share of each source."""

    def __init__(self, sources: Sequence[OpenSource]) -> None:
        self.sources = [source for source in sources if source.held_out is not None]
        sizes = [source.held_out.size for source in self.sources if source.held_out is not None]
        known = [size for size in sizes if size is not None]
        self.size = sum(known) if len(known) == len(sizes) else None
        self.turns = None  # where all sources have an end: (index in the source, source), and no source begins anew
        if self.size is not None:
            self.turns = sorted((within, number) for number, size in enumerate(known) for within in range(size))

    def __getitem__(self, index: int) -> Prompt:
        """The prompt number `index`. Beside a source without an end, one with an end begins anew."""
        within, number = divmod(index, len(self.sources)) if self.turns is None else self.turns[index]
        source = self.sources[number]
        assert source.held_out is not None
        size = source.held_out.size
        return source.tagged(source.held_out[within if size is None else within % size])


def read_weights(name: str, given: float | Mapping[str, float]) -> Weights:
    """A weight, or weights by the step from which they hold: `{0: 1.0, 200: 0.25}`."""
    try:
        by_step = {0: given} if isinstance(given, (int, float)) else {int(step): w for step, w in given.items()}
    except ValueError:
        by_step = {}
    if not by_step or min(by_step) < 0:
        raise UserError(f"the weight of {name!r} is a number of at least 0, or such numbers by step, not {given!r}.")
    return tuple(sorted({0: 0.0, **by_step}.items()))


def weight_at(weights: Weights, step: int) -> float:
    """The weight that holds at a step."""
    return next(weight for start, weight in reversed(weights) if start <= step)
