"""The native form: a plain function that scores one completion."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

from cohort.rewards.failure import RewardFailure, shorten, what_was_raised
from cohort.rewards.items import ScoringItem
from cohort.rewards.parameters import NATIVE_NAMES, Parameters

__all__ = ["as_score", "score_native"]


def score_native(
    name: str, function: Callable[..., Any], parameters: Parameters, args: Mapping[str, Any], item: ScoringItem
) -> tuple[float, ...]:
    """Call `function` once for every completion of `item`."""
    unknown = {known for known, values in (("finish", item.finishes), ("tokens", item.tokens)) if not values}
    filled = [known for known in NATIVE_NAMES if known not in unknown]
    columns = {key: value for key, value in item.row.items() if isinstance(key, str) and key not in NATIVE_NAMES}
    parameters.check([*filled, *args, *(key for key in columns if key not in args)], name)

    fixed = {key: value for key, value in {**columns, **args}.items() if parameters.takes(key)}
    wanted = [known for known in filled if parameters.takes(known)]
    scores = []
    for index, completion in enumerate(item.completions):
        values = {**fixed, **{known: _value(known, item, index, name) for known in wanted}}
        shown = (shorten(item.prompt), shorten(completion))
        try:
            result = function(**values)
        except KeyboardInterrupt:  # Ctrl-C; a worker gets none, so there it is the function's own
            raise
        except BaseException as error:
            raise RewardFailure(name, f"raised {what_was_raised(error, function)}", *shown) from error
        scores.append(as_score(result, name, *shown))
    return tuple(scores)


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
        case _:
            from cohort.seeds import derive_seed  # brings numpy: 80 ms that most workers never need

            return derive_seed(item.seed, "reward", name, index)


def as_score(result: object, name: str, prompt: str, completion: str) -> float:
    """A finite number as float, None as NaN ("does not apply"); anything else is the function's failure.

    A tensor or an array of one number is that number.
    """
    if result is None:
        return math.nan
    try:
        value = result if isinstance(result, numbers.Real) else result.item()  # type: ignore[attr-defined]
        score = float(value) if isinstance(value, numbers.Real) else math.nan
    except Exception:  # it has no item(), or several, or is too large
        score = math.nan
    if math.isfinite(score):
        return score
    raise RewardFailure(
        name,
        f"returned {shorten(result)} ({type(result).__name__}); a reward is a finite number, or None where it does "
        "not apply",
        prompt,
        completion,
    )
