"""Calling a reward function, in the two forms that it may have, and reading what it returns.

    def score(completion, answer): ...                       # native: one completion; parameters go by name
    def score(prompts, completions, **columns): ...          # TRL's: a whole group, returns a list

Either may be async, whatever it is that returns an awaitable: a function, a lambda, a callable object.

As in TRL, a conversational prompt reaches a function of that form as its list of messages and a
completion as `[{"role": "assistant", "content": text}]`; every column is a list with one entry a completion. Unlike
TRL, a function without `**kwargs` gets only what it names.

What a function returns is read as a score here too; whatever else it is, is the function's failure.
"""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cohort.patience import awaited
from cohort.rewards.calling.offered import Notes
from cohort.rewards.calling.steps import FOLDS, Fold
from cohort.rewards.combination import LARGEST
from cohort.rewards.failure import RewardFailure, what_was_raised
from cohort.rewards.items import Labelled, Scored, ScoringItem
from cohort.types import InfrastructureError, UserError
from cohort.wording import shorten

if TYPE_CHECKING:
    from cohort.rewards.calling.reward import Reward

Steps = Sequence[Sequence[str]]  # the steps of each completion


def call_each(reward: Reward, item: ScoringItem, steps: Steps = ()) -> list[Any]:
    """What a native function returns for each completion; with `steps`, those of its completion are a parameter too.

    Raises RewardFailure for what the function raises, but an InfrastructureError as it is.
    """
    unknown = {known for known, values in (("finish", item.finishes), ("tokens", item.tokens)) if not values}
    fill = {**_FILLED, "steps": lambda reward, item, index: list(steps[index])} if steps else _FILLED
    filled = [known for known in fill if known not in unknown]
    columns = {key: value for key, value in item.row.items() if isinstance(key, str) and key not in fill}
    parameters, args = reward.parameters, reward.args
    parameters.check([*filled, *args, *(key for key in columns if key not in args)], reward.name)

    fixed = parameters.chosen({**columns, **args})
    wanted = {known: fill[known] for known in filled if parameters.takes(known)}
    if "begun" not in (*parameters.required, *parameters.optional):  # for those who ask for it, not for **anything
        wanted.pop("begun", None)
    calls = [
        {**fixed, **{known: value_of(reward, item, index) for known, value_of in wanted.items()}}
        for index in range(len(item.completions))
    ]
    results: list[Any] = []
    for index, values in enumerate(calls):
        try:
            results.append(reward.function(**values))
        except BaseException as error:
            for begun in filter(inspect.iscoroutine, results):
                begun.close()  # nobody will wait for it
            if isinstance(error, (KeyboardInterrupt, InfrastructureError)):  # Ctrl-C: a worker gets none
                raise
            raise _raised(reward, item, index, error) from error
    if not any(map(inspect.isawaitable, results)):
        return results
    return _gathered([_awaited(reward, result, item, index) for index, result in enumerate(results)])


def call_group(reward: Reward, item: ScoringItem, steps: Steps, notes: Notes) -> list[Any]:
    """The list that a TRL-style function returns; with `steps`, those of all completions are a parameter too. What it
    logs goes into `notes`.

    Raises RewardFailure for what the function raises, but an InfrastructureError or a UserError as it is.
    """
    count, name = len(item.completions), reward.name
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
    values = {**lists, **notes.offered(item, reward.last_step), **reward.args}
    reward.parameters.check(list(values), name)

    prompt = shorten(item.prompt)
    try:
        results = reward.function(**reward.parameters.chosen(values))
        if inspect.isawaitable(results):
            (results,) = _gathered([results])
    except (KeyboardInterrupt, InfrastructureError, UserError):  # Ctrl-C; and what names its own cause
        raise
    except BaseException as error:
        raise RewardFailure(name, f"raised {what_was_raised(error, reward.function)}", prompt) from error
    return list(_listed(results, count, "completions", "a TRL-style reward returns a list of numbers", name, prompt))


def _listed(result: Any, count: int, of: str, wanted: str, name: str, *shown: str) -> Sequence[Any]:
    """The list of so many scores that a function returned for a group's completions or a completion's steps."""
    found = result.tolist() if hasattr(result, "tolist") else result
    if not isinstance(found, (list, tuple)):
        raise RewardFailure(name, f"returned {shorten(result)} ({type(result).__name__}); {wanted}", *shown)
    if len(found) != count:
        problem = f"returned {len(found)} scores for {count} {of}; it must return one for each, in order"
        raise RewardFailure(name, problem, *shown)
    return found


def as_score(result: object, name: str, prompt: str, completion: str) -> Scored:
    """What the reward `name` returned, as a `Scored` whose value is a finite float, or None ("does not apply").

    A tensor or an array of one number is that number. Raises RewardFailure for anything else.
    """
    label = result.label if isinstance(result, Scored | Labelled) else None
    found = result.value if isinstance(result, Scored) else result
    if found is None:
        return Scored(None, label)
    try:
        value = found if isinstance(found, numbers.Real) else found.item()  # type: ignore[attr-defined]
        score = float(value) if isinstance(value, numbers.Real) else math.nan
    except Exception:  # it has no item(), or several, or is too large
        score = math.nan
    if math.isfinite(score) and abs(score) <= LARGEST:
        return Scored(score, label)
    raise RewardFailure(
        name,
        f"returned {shorten(found)} ({type(found).__name__}); a reward is a finite number of at most "
        f"{LARGEST:g}, or None where it does not apply",
        shorten(prompt),
        shorten(completion),
    )


def scored_steps(
    result: object, ends: Sequence[int], fold: Fold | None, name: str, prompt: str, completion: str
) -> Scored:
    """What a function returned for the steps of one completion, which end at `ends`, in characters.

    The value is the mean of the steps' scores, or what `fold` makes of them; with `fold` the steps themselves are
    dropped. None: the reward does not apply. Raises RewardFailure for anything but one number a step.
    """
    if result is None:
        return Scored(None)
    shown = (shorten(prompt), shorten(completion))
    found = _listed(result, len(ends), "steps", "with split it returns a list, a number a step", name, *shown)
    scores = [as_score(score, name, prompt, completion).value for score in found]
    known = [score for score in scores if score is not None]
    if len(known) != len(scores):
        raise RewardFailure(name, "returned None for a step; return None for the whole completion, or a number", *shown)
    return Scored(FOLDS[fold or "mean"](known), None, () if fold else tuple(zip(ends, known)))


def _gathered(calls: Sequence[Awaitable[Any]]) -> list[Any]:
    """What the calls give, which wait at the same time. The first that raises ends the others and is raised."""
    import asyncio  # nothing that workers without an async function should load

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*calls)

    return awaited(all_of_them())


async def _awaited(reward: Reward, result: Any, item: ScoringItem, index: int) -> Any:
    try:
        return await result if inspect.isawaitable(result) else result
    except (KeyboardInterrupt, InfrastructureError):
        raise
    except Exception as error:  # not a cancellation: that is another call's failure
        raise _raised(reward, item, index, error) from error


def _raised(reward: Reward, item: ScoringItem, index: int, error: BaseException) -> RewardFailure:
    shown = (shorten(item.prompt), shorten(item.completions[index]))
    return RewardFailure(reward.name, f"raised {what_was_raised(error, reward.function)}", *shown)


def _seed(reward: Reward, item: ScoringItem, index: int) -> int:
    from cohort.seeds import derive_seed  # brings numpy: 80 ms that most workers never need

    return derive_seed(item.seed, "reward", reward.name, index)


# What a native function's parameters are filled with, for one completion of a group: NATIVE_NAMES, in their order.
_FILLED: Mapping[str, Callable[[Reward, ScoringItem, int], Any]] = {
    "completion": lambda reward, item, index: item.completions[index],
    "prompt": lambda reward, item, index: item.prompt,
    "answer": lambda reward, item, index: item.answer,
    "row": lambda reward, item, index: dict(item.row),  # a copy, so that no call can change what the next one sees
    "finish": lambda reward, item, index: item.finishes[index],
    "tokens": lambda reward, item, index: item.tokens[index],
    "transcript": lambda reward, item, index: item.transcript(index),
    "seed": _seed,
    "begun": lambda reward, item, index: item.begun,
}
