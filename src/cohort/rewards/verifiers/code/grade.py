"""Running a candidate's code on tests and judging what comes out. The wanted results never leave this process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from cohort.rewards.verifiers.code.compare import same_text, same_value
from cohort.rewards.verifiers.code.tests import Case, CodeTests
from cohort.sandbox import WALL_PER_CPU, Executor, Run, SandboxError

__all__ = ["Graded", "Rules", "Verdict", "grade"]

Verdict = Literal["right", "wrong", "timeout", "memory", "error", "sandbox_error"]


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
    the candidate's. With the verdict sandbox_error nothing is known of the code.
    """

    verdict: Verdict
    passed: int
    total: int
    message: str = ""


def grade(code: str, tests: CodeTests, executor: Executor, rules: Rules) -> Graded:
    """Judge `code`. Raises UserError when the executor is not what the recipe wants; its failures are a verdict."""
    try:
        judged = _functions(code, tests, executor, rules) if tests.function else _programs(code, tests, executor, rules)
    except SandboxError as error:
        return Graded("sandbox_error", 0, len(tests.cases), str(error))
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
        judged.append(_judge(run, _returned(run, tests.cases[len(judged)], tests.wrapped, rules.tolerance)))
        return rules.every or judged[-1][0] == "right"

    assert tests.function is not None
    given = [case.given for case in tests.cases]
    executor.call(code, tests.function, given, rules.time_s, rules.total_s, take)
    return judged


def _returned(run: Run, case: Case, wrapped: bool, tolerance: float) -> bool:
    if same_value(run.value, case.wanted, tolerance):
        return True
    return wrapped and same_value(run.value, case.wanted[0], tolerance)


def _judge(run: Run, agrees: bool) -> _Judgement:
    if run.status != "ok":
        return run.status, run.message
    return ("right", "") if agrees else ("wrong", "")
