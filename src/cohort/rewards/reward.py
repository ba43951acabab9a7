"""A reward that is ready to score, and scoring a group in this process."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from cohort.rewards.items import ScoredGroup, ScoringItem, combine
from cohort.rewards.native import score_native
from cohort.rewards.parameters import Parameters
from cohort.rewards.trl_style import score_trl
from cohort.types import UserError

__all__ = ["Reward", "Style", "check_names", "score_group"]

Style = Literal["cohort", "trl"]


@dataclass(frozen=True, slots=True)
class Reward:
    """A function with its name, weight and time limit; `resolve` makes them. `timeout_s` is for one whole group."""

    name: str
    function: Callable[..., Any]
    parameters: Parameters
    style: Style
    weight: float
    args: Mapping[str, Any]
    timeout_s: float

    def score(self, item: ScoringItem) -> tuple[float, ...]:
        """One float a completion, NaN where the reward does not apply. Raises RewardFailure; has no time limit."""
        score = score_native if self.style == "cohort" else score_trl
        with _pinned_random(f"{item.seed}/{self.name}"):
            return score(self.name, self.function, self.parameters, self.args, item)


def score_group(rewards: Sequence[Reward], item: ScoringItem) -> ScoredGroup:
    """Score a group here and now, without a worker and without time limits."""
    check_names(rewards)
    scores, seconds = {}, {}
    for reward in rewards:
        started = time.perf_counter()
        scores[reward.name] = reward.score(item)
        seconds[reward.name] = time.perf_counter() - started
    return ScoredGroup(scores, seconds, combine(scores, {reward.name: reward.weight for reward in rewards}))


def check_names(rewards: Sequence[Reward]) -> None:
    """Refuse an empty list, and two rewards of one name: they would share a metric."""
    if not rewards:
        raise UserError("there is no reward; name at least one, e.g. exact_number")
    seen: set[str] = set()
    for reward in rewards:
        if reward.name in seen:
            raise UserError(f"two rewards are called '{reward.name}'; give one of them another name = \"...\"")
        seen.add(reward.name)


@contextmanager
def _pinned_random(seed: str) -> Iterator[None]:
    """Fix Python's and NumPy's global generators while a reward runs.

    A function that draws from them then gives the same scores in every worker and on replay.
    """
    before = random.getstate()
    random.seed(seed)
    numpy = sys.modules.get("numpy")  # only where the function has brought it in
    if numpy is not None:
        numpy_before = numpy.random.get_state()
        numpy.random.seed(random.getrandbits(32))
        random.seed(seed)  # whether NumPy is loaded must not move Python's generator
    try:
        yield
    finally:
        random.setstate(before)
        if numpy is not None:
            numpy.random.set_state(numpy_before)
