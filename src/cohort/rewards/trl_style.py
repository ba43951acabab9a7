"""TRL-style reward functions: `(prompts, completions, **columns) -> list[float]`, called once a group.

As in TRL, a conversational prompt reaches the function as its list of messages and a completion as
`[{"role": "assistant", "content": text}]`; every column is a list with one entry a completion. Unlike TRL, a function
without `**kwargs` gets only the columns that it names; `completion_ids` and `trainer_state` are not offered.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cohort.rewards.failure import RewardFailure, what_was_raised
from cohort.rewards.items import Scored, ScoringItem
from cohort.rewards.native import as_score
from cohort.rewards.parameters import Parameters
from cohort.types import InfrastructureError, UserError
from cohort.wording import shorten

__all__ = ["TrlStyle", "call_trl", "score_trl", "trl"]


@dataclass(frozen=True, slots=True)
class TrlStyle:
    """A function marked as TRL-style."""

    function: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself."""
        return self.function(*args, **kwargs)


def trl(function: Callable[..., Any]) -> TrlStyle:
    """Mark a TRL reward function: `RewardSpec(trl(my_function))`. In a recipe, `style = "trl"` says the same."""
    return function if isinstance(function, TrlStyle) else TrlStyle(function)


def score_trl(
    name: str, function: Callable[..., Any], parameters: Parameters, args: Mapping[str, Any], item: ScoringItem
) -> tuple[Scored, ...]:
    """Call `function` once with the whole group. An InfrastructureError that it raises goes on as it is."""
    scores = call_trl(name, function, parameters, args, item)
    prompt = shorten(item.prompt)
    return tuple(as_score(score, name, prompt, shorten(text)) for score, text in zip(scores, item.completions))


def call_trl(
    name: str,
    function: Callable[..., Any],
    parameters: Parameters,
    args: Mapping[str, Any],
    item: ScoringItem,
    steps: Sequence[Sequence[str]] = (),
) -> list[Any]:
    """The list that `function` returned. With `steps`, those of all completions are a parameter too."""
    count = len(item.completions)
    lists: dict[str, list[Any]] = {key: [value] * count for key, value in item.row.items() if isinstance(key, str)}
    lists["answer"] = [item.answer] * count
    if item.messages is None:
        lists["prompts"] = [item.prompt] * count
        lists["completions"] = list(item.completions)
    else:
        lists["prompts"] = [[dict(message) for message in item.messages] for _ in range(count)]
        lists["completions"] = [item.transcript(index) for index in range(count)]
    if steps:
        lists["steps"] = [list(texts) for texts in steps]
    values = {**lists, **args}
    parameters.check(list(values), name)

    prompt = shorten(item.prompt)
    try:
        results = function(**{key: value for key, value in values.items() if parameters.takes(key)})
        if inspect.iscoroutine(results):
            from cohort.rewards.waiting import awaited

            (results,) = awaited([results])
    except (KeyboardInterrupt, InfrastructureError, UserError):  # Ctrl-C; and what names its own cause
        raise
    except BaseException as error:
        raise RewardFailure(name, f"raised {what_was_raised(error, function)}", prompt) from error
    scores = results.tolist() if hasattr(results, "tolist") else results
    if not isinstance(scores, (list, tuple)):
        problem = (
            f"returned {shorten(results)} ({type(results).__name__}); a TRL-style reward returns a list of numbers"
        )
        raise RewardFailure(name, problem, prompt)
    if len(scores) != count:
        problem = f"returned {len(scores)} scores for {count} completions; it must return one for each, in order"
        raise RewardFailure(name, problem, prompt)
    return list(scores)
