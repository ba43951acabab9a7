"""Rewards that score the steps of a completion: how a text is cut into steps, and what becomes of their scores.

    def score_steps(steps, answer):                 # with split = "lines": one number for each step
        return [1.0 if answer in step else 0.0 for step in steps]

The steps tile the text: a step ends with the separator behind it, the last one with the text. Where a step ends in
tokens is found by the trainer, from the tokens that were sampled.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from cohort.rewards.failure import RewardFailure
from cohort.rewards.items import Scored
from cohort.rewards.native import as_score
from cohort.types import UserError
from cohort.wording import shorten

__all__ = ["FOLDS", "Fold", "cut", "pieces", "scored_steps", "splitter"]

Fold = Literal["mean", "min", "last", "product"]
FOLDS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda scores: math.fsum(scores) / len(scores),
    "min": min,
    "last": lambda scores: scores[-1],
    "product": math.prod,
}
_SPLITS = {"blank_lines": r"\n[^\S\n]*(?:\n\s*)+", "lines": r"\n\s*"}


def splitter(split: str, name: str) -> re.Pattern[str]:
    """What separates steps: "blank_lines", "lines", or a regular expression. Raises UserError for anything else."""
    try:
        return re.compile(_SPLITS.get(split, split))
    except re.error as error:
        raise UserError(
            f'reward \'{name}\': split is "blank_lines", "lines" or a regular expression, not {split!r} ({error})'
        ) from None


def cut(text: str, separator: re.Pattern[str]) -> list[int]:
    """Where the steps of a text end, in characters: increasing, the last one is the text's end.

    Nothing but whitespace is no step: it belongs to the step before it, or at the beginning to the one behind it. A
    text without any step is one, so that saying nothing can be scored too.
    """
    ends: list[int] = []
    start = 0
    for found in separator.finditer(text):
        if found.end() > start and text[start : found.start()].strip():
            start = found.end()
            ends.append(start)
    if ends and not text[start:].strip():
        ends[-1] = len(text)
    else:
        ends.append(len(text))
    return ends


def pieces(text: str, ends: Sequence[int]) -> list[str]:
    """The steps as texts, without the whitespace around them."""
    return [text[start:end].strip() for start, end in zip([0, *ends], ends)]


def scored_steps(
    result: object, ends: Sequence[int], fold: Fold | None, name: str, prompt: str, completion: str
) -> Scored:
    """What a function returned for the steps of one completion. Its value is their mean, or what `fold` makes of them;
    with `fold` the steps themselves are dropped. None: the reward does not apply.
    """
    if result is None:
        return Scored(None)
    found = result.tolist() if hasattr(result, "tolist") else result
    shown = (shorten(prompt), shorten(completion))
    if not isinstance(found, (list, tuple)):
        problem = f"returned {shorten(result)} ({type(result).__name__}); with split it returns a list, a number a step"
        raise RewardFailure(name, problem, *shown)
    if len(found) != len(ends):
        problem = f"returned {len(found)} scores for {len(ends)} steps; it must return one for each, in order"
        raise RewardFailure(name, problem, *shown)
    scores = [as_score(score, name, *shown).value for score in found]
    if any(score is None for score in scores):
        raise RewardFailure(name, "returned None for a step; return None for the whole completion, or a number", *shown)
    known = [score for score in scores if score is not None]
    value = FOLDS[fold or "mean"](known)
    return Scored(value, None, () if fold else tuple(zip(ends, known)))
