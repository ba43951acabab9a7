"""The working of a word problem, step by step: `use = "cohort.rewards.verifiers.working:working"` with a `split`.

It knows the gold working of the embedded problems (their column `reasoning`), so it is what labels steps for a process
reward model, and what such a model is compared with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

EQUATION = re.compile(r"\d+(?:\s*[-+*/]\s*\d+)+\s*=\s*\d+")
ANSWER = re.compile(r"<answer>\s*(-?\d+)\s*</answer>")
# Steps of `<think> 12 + 7 = 19 . 19 - 4 = 15 </think><answer> 15 </answer>`: each equation, and the answer.
SPLIT = " [.] (?=[^<])|</think>"


def working(steps: Sequence[str], reasoning: str, answer: str) -> list[float]:
    """For each step 1 if it is right, else 0: an equation must be one of the gold working that was not there before, an
    answer the gold answer, and a step that holds neither says nothing and is wrong.
    """
    left = [_plain(one) for one in EQUATION.findall(reasoning)]
    return [float(_is_right(step, left, answer)) for step in steps]


def _is_right(step: str, left: list[str], answer: str) -> bool:
    """Whether a step is right; its equations are taken from those that are `left`."""
    found, answers = [_plain(one) for one in EQUATION.findall(step)], ANSWER.findall(step)
    for one in found:
        if one not in left:
            return False
        left.remove(one)
    return bool(found or answers) and all(math.isclose(float(one), float(answer)) for one in answers)


def _plain(equation: str) -> str:
    return re.sub(r"\s", "", equation)
