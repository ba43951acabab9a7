"""Judges answers to reasoning-gym problems that have many right ones. Runs behind `cohort.rewards.guarded`.

The problem is made again from what its prompt says of it (task, configuration, seed), so nothing but plain values
crosses the border and the answer is judged against the very problem that was asked.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import json
import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

from reasoning_gym.factory import create_dataset

from cohort.integrations.reasoning_gym.reward import EXECUTES, same

_EXPRESSION = re.compile(r"[0-9+\-*/() ]{1,300}")
_FULL_MARKS = 1 - 1e-9


def verify(problem: Mapping[str, Any], question: str, found: str) -> bool:
    """Whether `found` is a right answer in full.

    Raises RuntimeError if the problem cannot be made again, as with another version of reasoning-gym.
    """
    dataset, entry = _entry(problem["task"], json.dumps(problem["config"]), problem["seed"])
    if entry["question"] != question:
        raise RuntimeError(
            f"this reasoning-gym makes another problem of the task {problem['task']} than the one that was asked; "
            "install the version that made it"
        )
    if problem["scoring"] == "expression":
        return _makes(found, entry["metadata"])
    if problem["scoring"] == "one_of":
        return any(same(found, valid) for valid in entry["metadata"]["valid_answers"])
    if problem["task"] in EXECUTES:
        raise RuntimeError(f"the scorer of {problem['task']} executes the answer")
    try:
        # A copy, because some scorers write into the entry. Full marks only: the rest is for part of an answer.
        return bool(dataset.score_answer(found.strip(), copy.deepcopy(entry)) >= _FULL_MARKS)
    except Exception:  # scorers pay the gold answer of every problem, so it is the text that they choke on
        return False


def arithmetic(text: str) -> tuple[Fraction, list[int]] | None:
    """The value of an expression of whole numbers, + - * / and brackets, and the numbers in it; None for anything else.

    The text is parsed and walked, not evaluated.
    """
    if not _EXPRESSION.fullmatch(text):
        return None
    numbers: list[int] = []
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, numbers), numbers
    except (SyntaxError, ValueError, RecursionError, MemoryError, ZeroDivisionError):
        return None


def _value(node: ast.expr, numbers: list[int]) -> Fraction:
    match node:
        case ast.Constant(value=int(number)):
            numbers.append(number)
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner, numbers)
        case ast.BinOp(left=left, op=operation, right=right):
            a, b = _value(left, numbers), _value(right, numbers)
            match operation:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.Div():
                    return a / b
    raise ValueError("not plain arithmetic")


def _makes(found: str, metadata: Mapping[str, Any]) -> bool:
    """Whether an expression uses every given number once and comes to the target (24 where none is given)."""
    result = arithmetic(" ".join(found.split()))
    if result is None:
        return False
    value, numbers = result
    return sorted(numbers) == sorted(metadata["numbers"]) and value == metadata.get("target", 24)


@lru_cache(maxsize=64)
def _entry(task: str, config: str, seed: int) -> tuple[Any, dict[str, Any]]:
    with contextlib.redirect_stdout(io.StringIO()):  # some generators print
        dataset = create_dataset(task, **json.loads(config), seed=seed, size=1)
        return dataset, dataset[0]
