"""Running a candidate's code on tests and judging what comes out: values by type, texts by lines and words, decimals by
relative difference. The wanted results never leave this process.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from cohort.rewards.verifiers.code.tests import CodeTests
from cohort.sandbox import WALL_PER_CPU, Executor, Run

_ZERO = 1e-12  # this near to a wanted zero is rounding: no relative difference can tell
_LONGEST_NUMBER = 400  # characters
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,4})?", re.ASCII)

Verdict = Literal["right", "wrong", "timeout", "memory", "error"]


@dataclass(frozen=True, slots=True)
class Rules:
    """`time_s` and `total_s` are seconds of processor time for one case and for all of them. `every` case is run, for
    partial credit, or those up to the first that fails.
    """

    time_s: float
    total_s: float
    tolerance: float
    every: bool


@dataclass(frozen=True, slots=True)
class Graded:
    """`verdict` is right when all cases passed, else what became of the first that did not. `message` may hold words of
    the candidate's.
    """

    verdict: Verdict
    passed: int
    total: int
    message: str = ""


def grade(code: str, tests: CodeTests, executor: Executor, rules: Rules) -> Graded:
    """Judge `code`. Raises UserError when the executor is not what the recipe wants, SandboxError when it fails."""
    judged = _functions(code, tests, executor, rules) if tests.function else _programs(code, tests, executor, rules)
    passed = sum(verdict == "right" for verdict, _ in judged)
    failed = next((judgement for judgement in judged if judgement[0] != "right"), ("right", ""))
    return Graded(failed[0], passed, len(tests.cases), failed[1])


_Judgement = tuple[Verdict, str]


def _programs(code: str, tests: CodeTests, executor: Executor, rules: Rules) -> list[_Judgement]:
    judged: list[_Judgement] = []
    left_s, deadline = rules.total_s, time.monotonic() + WALL_PER_CPU * rules.total_s
    for case in tests.cases:
        limit_s = min(rules.time_s, left_s, deadline - time.monotonic())
        if limit_s <= 0:
            run = Run("timeout", message=f"more than {rules.total_s:g} s for all cases together")
        else:
            run = executor.run(code, case.given, limit_s)
            left_s -= run.used_s
        began = time.monotonic()
        judged.append(_judge(run, same_text(run.output, case.wanted, rules.tolerance)))
        left_s -= time.monotonic() - began  # a megabyte of words costs its time too
        if judged[-1][0] != "right" and not rules.every:
            break
    return judged


def _functions(code: str, tests: CodeTests, executor: Executor, rules: Rules) -> list[_Judgement]:
    judged: list[_Judgement] = []

    def take(run: Run) -> bool:
        wanted = tests.cases[len(judged)].wanted
        either = (wanted, wanted[0]) if tests.wrapped else (wanted,)
        judged.append(_judge(run, any(same_value(run.value, value, rules.tolerance) for value in either)))
        return rules.every or judged[-1][0] == "right"

    assert tests.function is not None
    given = [case.given for case in tests.cases]
    executor.call(code, tests.function, given, rules.time_s, rules.total_s, take)
    return judged


def _judge(run: Run, agrees: bool) -> _Judgement:
    if run.status != "ok":
        return run.status, run.message
    return ("right", "") if agrees else ("wrong", "")


def same_value(found: Any, wanted: Any, tolerance: float) -> bool:
    """Whether two plain values are equal: numbers as numbers (a bool is none), where a float is wanted up to the
    relative `tolerance`; a tuple may stand for a list, because JSON has no tuples; everything else by type and content.
    """
    if isinstance(wanted, bool) or isinstance(found, bool) or wanted is None or found is None:
        return type(found) is type(wanted) and bool(found == wanted)
    if isinstance(wanted, float):
        return isinstance(found, (int, float)) and _near(found, wanted, tolerance)
    if isinstance(wanted, int):
        return isinstance(found, (int, float)) and found == wanted
    if isinstance(wanted, (list, tuple)):
        if not isinstance(found, (list, tuple)) or len(found) != len(wanted):
            return False
        return all(same_value(f, w, tolerance) for f, w in zip(found, wanted))
    if isinstance(wanted, dict):
        if not isinstance(found, dict) or _typed(found) != _typed(wanted):
            return False
        return all(same_value(found[key], value, tolerance) for key, value in wanted.items())
    if isinstance(wanted, (set, frozenset)):
        return isinstance(found, (set, frozenset)) and _typed(found) == _typed(wanted)
    return type(found) is type(wanted) and bool(found == wanted)


def same_text(found: bytes, wanted: str, tolerance: float) -> bool:
    """Whether a program has printed what it should: the same words in the same lines. The space between words, at the
    ends of lines and empty lines at the end do not count. A wanted decimal (with a point or an exponent) is compared as
    a number, up to the relative `tolerance`.
    """
    lines, wanted_lines = _lines(found.decode("utf-8", "surrogateescape")), _lines(wanted)
    if lines == wanted_lines:
        return True
    return len(lines) == len(wanted_lines) and all(
        len(line) == len(words) and all(f == w or _same_decimal(f, w, tolerance) for f, w in zip(line, words))
        for line, words in zip(lines, wanted_lines)
    )


def _lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.rstrip().split("\n")]


def _same_decimal(found: str, wanted: str, tolerance: float) -> bool:
    if not any(mark in wanted for mark in ".eE") or max(len(found), len(wanted)) > _LONGEST_NUMBER:
        return False
    if not _NUMBER.fullmatch(wanted) or not _NUMBER.fullmatch(found):
        return False
    return _near(float(found), float(wanted), tolerance)


def _near(found: float, wanted: float, tolerance: float) -> bool:
    if wanted == 0:
        return abs(found) <= _ZERO
    if math.isnan(wanted):
        return found != found  # math.isnan refuses an int beyond all floats
    try:
        return math.isclose(found, wanted, rel_tol=tolerance, abs_tol=0.0)
    except OverflowError:  # an int beyond all floats
        return False


def _typed(keys: Collection[Any]) -> set[tuple[bool, Any]]:
    """Keys in which True is not 1."""
    return {(isinstance(key, bool), key) for key in keys}
