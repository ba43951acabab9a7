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

from cohort.types import UserError

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

    A piece of whitespace alone is no step: it belongs to the step before it, or, at the beginning, to the step behind
    it. A text of whitespace alone is one step, so that a completion which says nothing can be scored too.
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
