"""The native form: a function, plain or async, that scores one completion."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cohort.rewards.failure import RewardFailure, what_was_raised
from cohort.rewards.items import Scored, ScoringItem
from cohort.rewards.parameters import NATIVE_NAMES, Parameters
from cohort.types import InfrastructureError
from cohort.wording import shorten

__all__ = ["as_score", "call_native", "score_native"]


def score_native(
    name: str, function: Callable[..., Any], parameters: Parameters, args: Mapping[str, Any], item: ScoringItem
) -> tuple[Scored, ...]:
    """Call `function` once for every completion of `item`. An InfrastructureError that it raises goes on as it is."""
    results = call_native(name, function, parameters, args, item)
    texts = item.completions
    return tuple(
        as_score(found, name, shorten(item.prompt), shorten(text)) for found, text in zip(results, texts, strict=True)
    )


def call_native(
    name: str,
    function: Callable[..., Any],
    parameters: Parameters,
    args: Mapping[str, Any],
    item: ScoringItem,
    steps: Sequence[Sequence[str]] = (),
) -> list[Any]:
    """What `function` returned for every completion. With `steps`, those of each completion are a parameter too."""
    unknown = {known for known, values in (("finish", item.finishes), ("tokens", item.tokens)) if not values}
    names = (*NATIVE_NAMES, "steps") if steps else NATIVE_NAMES
    filled = [known for known in names if known not in unknown]
    columns = {key: value for key, value in item.row.items() if isinstance(key, str) and key not in names}
    parameters.check([*filled, *args, *(key for key in columns if key not in args)], name)

    fixed = {key: value for key, value in {**columns, **args}.items() if parameters.takes(key)}
    wanted = [known for known in filled if parameters.takes(known)]
    calls = []
    for index in range(len(item.completions)):
        values = {**fixed, **{known: _value(known, item, index, name) for known in wanted if known != "steps"}}
        if "steps" in wanted:
            values["steps"] = list(steps[index])
        calls.append(values)
    if inspect.iscoroutinefunction(function):
        from cohort.rewards.waiting import awaited

        return awaited([_awaited_call(name, function, values, item, index) for index, values in enumerate(calls)])
    return [_call(name, function, values, item, index) for index, values in enumerate(calls)]


def _call(name: str, function: Callable[..., Any], values: Mapping[str, Any], item: ScoringItem, index: int) -> Any:
    try:
        return function(**values)
    except (KeyboardInterrupt, InfrastructureError):  # Ctrl-C: a worker gets none, so there it is a failure
        raise
    except BaseException as error:
        raise _raised(name, function, item, index, error) from error


async def _awaited_call(
    name: str, function: Callable[..., Any], values: Mapping[str, Any], item: ScoringItem, index: int
) -> Any:
    try:
        return await function(**values)
    except (KeyboardInterrupt, InfrastructureError):
        raise
    except Exception as error:  # not a cancellation: that is another call's failure
        raise _raised(name, function, item, index, error) from error


def _raised(
    name: str, function: Callable[..., Any], item: ScoringItem, index: int, error: BaseException
) -> RewardFailure:
    shown = (shorten(item.prompt), shorten(item.completions[index]))
    return RewardFailure(name, f"raised {what_was_raised(error, function)}", *shown)


def _value(known: str, item: ScoringItem, index: int, name: str) -> Any:
    match known:
        case "completion":
            return item.completions[index]
        case "prompt":
            return item.prompt
        case "answer":
            return item.answer
        case "row":
            return dict(item.row)  # a copy, so that one call cannot change what the next one sees
        case "finish":
            return item.finishes[index]
        case "tokens":
            return item.tokens[index]
        case "transcript":
            return item.transcript(index)
        case _:
            from cohort.seeds import derive_seed  # brings numpy: 80 ms that most workers never need

            return derive_seed(item.seed, "reward", name, index)


def as_score(result: object, name: str, prompt: str, completion: str) -> Scored:
    """What a function returned, as a `Scored` whose value is a finite float, or None ("does not apply").

    A tensor or an array of one number is that number. Anything else is the function's failure.
    """
    label, found = (result.label, result.value) if isinstance(result, Scored) else (None, result)
    if found is None:
        return Scored(None, label)
    try:
        value = found if isinstance(found, numbers.Real) else found.item()  # type: ignore[attr-defined]
        score = float(value) if isinstance(value, numbers.Real) else math.nan
    except Exception:  # it has no item(), or several, or is too large
        score = math.nan
    if math.isfinite(score):
        return Scored(score, label)
    raise RewardFailure(
        name,
        f"returned {shorten(found)} ({type(found).__name__}); a reward is a finite number, or None where it does not "
        "apply",
        prompt,
        completion,
    )
