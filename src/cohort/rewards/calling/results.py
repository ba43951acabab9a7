"""What a reward function returned, read as a score; whatever else it is, is the function's failure."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

from cohort.rewards.calling.steps import FOLDS, Fold
from cohort.rewards.failure import RewardFailure
from cohort.rewards.items import Scored
from cohort.wording import shorten

__all__ = ["as_score", "scored_steps"]


def as_score(result: object, name: str, prompt: str, completion: str) -> Scored:
    """What the reward `name` returned, as a `Scored` whose value is a finite float, or None ("does not apply").

    A tensor or an array of one number is that number. Raises RewardFailure for anything else.
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
    found = result.tolist() if hasattr(result, "tolist") else result
    problem = ""
    if not isinstance(found, (list, tuple)):
        problem = f"returned {shorten(result)} ({type(result).__name__}); with split it returns a list, a number a step"
    elif len(found) != len(ends):
        problem = f"returned {len(found)} scores for {len(ends)} steps; it must return one for each, in order"
    if problem:
        raise RewardFailure(name, problem, shorten(prompt), shorten(completion))
    scores = [as_score(score, name, prompt, completion).value for score in found]  # type: ignore[union-attr]
    known = [score for score in scores if score is not None]
    if len(known) != len(scores):
        problem = "returned None for a step; return None for the whole completion, or a number"
        raise RewardFailure(name, problem, shorten(prompt), shorten(completion))
    return Scored(FOLDS[fold or "mean"](known), None, () if fold else tuple(zip(ends, known)))
