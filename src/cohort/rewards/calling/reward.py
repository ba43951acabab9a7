"""A reward that is ready to score, and scoring a group in this process."""

from __future__ import annotations

import math
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from cohort.rewards.calling.call import as_score, call_each, call_group, scored_steps
from cohort.rewards.calling.offered import Notes
from cohort.rewards.calling.parameters import Parameters
from cohort.rewards.calling.steps import Fold, cut, pieces
from cohort.rewards.combination import Combination, Gate
from cohort.rewards.items import Scored, ScoredGroup, ScoringItem
from cohort.types import UserError, inside
from cohort.wording import did_you_mean

Style = Literal["cohort", "trl"]


@dataclass(frozen=True, slots=True)
class Reward:
    """A function with its name, weight and time limits; `resolve` makes them.

    `timeout_s` is for one whole group. `completion_timeout_s` is the processor time after which the function stops
    working on a completion by itself, 0 if it never does; the group gets so much more time for each completion. `gate`
    makes the reward depend on another one, `when` says which prompts it scores (columns of the row and their values).
    `split` matches what separates the steps of a completion, for a function that scores steps; `fold` says how their
    scores become one. `last_step` is that of the stage, for functions that ask for the `trainer_state`.
    """

    name: str
    function: Callable[..., Any]
    parameters: Parameters
    style: Style
    weight: float
    args: Mapping[str, Any]
    timeout_s: float
    completion_timeout_s: float = 0.0
    gate: Gate | None = None
    when: Mapping[str, Any] = field(default_factory=dict)
    split: re.Pattern[str] | None = None
    fold: Fold | None = None
    last_step: int = 0

    @property
    def reads_tokens(self) -> bool:
        """Whether the function is handed the token ids of completions."""
        return self.style == "trl" and self.parameters.takes("completion_ids")

    def judge(self, item: ScoringItem) -> tuple[Scored, ...]:
        """One score with its label a completion; the function is not called for a prompt that `when` leaves out.

        Raises RewardFailure, or the InfrastructureError of the function; has no time limit.
        """
        texts, split = item.completions, self.split
        if not applies(self.when, item.row) or (split is not None and not texts):
            return (Scored(None),) * len(texts)
        notes = Notes()
        with _pinned_random(f"{item.seed}/{self.name}"):
            ends = [] if split is None else [cut(text, split) for text in texts]
            steps = [pieces(text, of) for text, of in zip(texts, ends)]
            results = call_each(self, item, steps) if self.style == "cohort" else call_group(self, item, steps, notes)
            if split is None:
                found = (as_score(one, self.name, item.prompt, text) for one, text in zip(results, texts))
            else:
                found = (
                    scored_steps(one, of, self.fold, self.name, item.prompt, text)
                    for one, of, text in zip(results, ends, texts)
                )
            return notes.onto(tuple(found))

    def score(self, item: ScoringItem) -> tuple[float, ...]:
        """`judge` without the labels: one float a completion, NaN where the reward does not apply."""
        return tuple(math.nan if scored.value is None else scored.value for scored in self.judge(item))


def applies(when: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether every column named in `when` has the value that stands there, or one of a list of values. With dots a
    name reaches into a column.
    """
    return all(_has(row, column, wanted) for column, wanted in when.items())


def _has(row: Mapping[str, Any], column: str, wanted: Any) -> bool:
    try:
        return _is(inside(row, column), wanted)
    except LookupError:
        return False


def _is(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, (list, tuple)):
        return any(_is(value, one) for one in wanted)
    # True == 1 in Python, but `when = { hard = true }` does not mean the row whose column says 1.
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def score_group(rewards: Sequence[Reward], item: ScoringItem) -> ScoredGroup:
    """Score a group here and now, without a worker and without time limits."""
    check_names(rewards)
    scored, seconds = {}, {}
    for reward in rewards:
        started = time.perf_counter()
        scored[reward.name] = reward.judge(item)
        seconds[reward.name] = time.perf_counter() - started
    return ScoredGroup.of(scored, seconds, Combination.of(rewards))


def check_names(rewards: Sequence[Reward]) -> None:
    """Refuse an empty list, two rewards of one name (they would share a metric), and a gate that is not there."""
    if not rewards:
        raise UserError("there is no reward; name at least one, e.g. exact_number")
    names = [reward.name for reward in rewards]
    for name, gate in ((reward.name, reward.gate) for reward in rewards):
        if names.count(name) > 1:
            raise UserError(f"two rewards are called '{name}'; give one of them another name = \"...\"")
        if gate is None:
            continue
        others = {other.name: other for other in rewards if other.name != name}
        if gate.reward not in others:
            raise UserError(
                f"reward '{name}' has the gate '{gate.reward}', which is no other reward of the recipe"
                f"{did_you_mean(gate.reward, others)}; the others are {', '.join(others) or 'none'}"
            )
        if others[gate.reward].gate is not None:
            raise UserError(
                f"reward '{name}' has the gate '{gate.reward}', which has a gate itself, and gates do not chain: "
                "remove one of the two"
            )


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
