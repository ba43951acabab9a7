"""Gold answers are checked before a run: a gold answer that a reward cannot score is a mistake in the data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from cohort.preflight.gate.probes import known_of
from cohort.rewards.calling.parameters import Parameters
from cohort.rewards.calling.reward import Reward, applies
from cohort.rewards.guarded import end_guards
from cohort.rewards.marks import CHECK
from cohort.types import Prompt, UserError
from cohort.wording import one_line, shorten


def check_gold(rewards: Iterable[Reward], rows: Iterable[tuple[str, Prompt]]) -> int:
    """Let every reward that has a `check_answer` check every row; `rows` are prompts with the place they come from.

    Returns the number of rows. Raises UserError, with the reward, the row and its answer, at the first row that one of
    the rewards cannot score.
    """
    checks = [(reward, check, Parameters.of(check, reward.name)) for reward in rewards if (check := _check_of(reward))]
    count = 0
    try:
        for place, prompt in rows if checks else ():
            count += 1
            for reward, check, parameters in checks:
                if applies(reward.when, prompt.tags):
                    _check(reward, check, parameters, place, prompt)
    finally:
        end_guards()
    return count


def _check_of(reward: Reward) -> Callable[..., Any] | None:
    function = inspect.unwrap(reward.function)
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    check: Callable[..., Any] | None = getattr(function, CHECK, None)
    return check


def _check(reward: Reward, check: Callable[..., Any], parameters: Parameters, place: str, prompt: Prompt) -> None:
    values = known_of(reward, prompt)
    parameters.check(list(values), reward.name)
    try:
        check(**parameters.chosen(values))
    except ValueError as error:
        raise UserError(
            f"{place}: reward '{reward.name}' cannot score this row, whose answer is {shorten(prompt.answer)}: "
            f"{one_line(error)}. Mend or remove the row, or change the reward or its args"
        ) from None
