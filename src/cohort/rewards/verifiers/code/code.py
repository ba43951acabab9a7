"""Does the code pass its tests? Run in the sandbox, judged outside of it.

The code is the last block of the text that is fenced as Python, ```python to ```; a block that is not closed is none.
The label says what became of the first test that failed, else "right":

    right   wrong   no_code
    error                   it raised, exited with another status than 0, crashed, or wrote too much
    timeout     memory      it took too much

When the sandbox fails there is no score: SandboxError, an InfrastructureError.
"""

from __future__ import annotations

import math
import re
import textwrap
from dataclasses import dataclass
from typing import Any, Literal, get_args

from cohort.rewards.calling.parameters import with_fields_of
from cohort.rewards.items import Scored
from cohort.rewards.marks import checked_by, prepared_by, stated_by, stops_after
from cohort.rewards.verifiers.code.grade import Rules, grade
from cohort.rewards.verifiers.code.tests import CodeTests, read_tests
from cohort.sandbox import LEVELS, Executor, Level, Limits, RemoteSandbox, Sandbox

__all__ = ["CodeSettings", "check_code", "close_executors", "code", "executor_for", "extract_code"]

Credit = Literal["all", "share"]
Extract = Literal["fenced", "whole"]

_FENCE = re.compile(r"[ \t]*```+([^`]*)")
_PYTHON = ("python", "python3", "py")


def extract_code(completion: str, extract: Extract = "fenced") -> str | None:
    """The code of a completion: its last closed block fenced as Python, or the whole of it. None if there is none."""
    if extract == "whole":
        return completion if completion.strip() else None
    found: str | None = None
    block: list[str] | None = None  # lines of the Python block that is open
    for line in completion.split("\n"):
        fence = _FENCE.fullmatch(line)
        label = fence[1].strip().lower() if fence else None
        if label in _PYTHON:
            block = []
        elif block is not None and label == "":
            found, block = textwrap.dedent("\n".join(block)), None
        elif block is not None:
            block.append(line)
    return found if found is not None and found.strip() else None


@dataclass(frozen=True, slots=True)
class CodeSettings:
    """The arguments of `code`. Raises ValueError for a value that there is not.

    credit      1 for passing "all" tests, or the "share" of tests that pass
    extract     "fenced": the last Python block is the code; "whole": the whole completion is
    time_s      seconds of processor time for one test; total_s: for all tests of a completion
    tolerance   relative, where a decimal is wanted
    isolation   the level that the sandbox must reach
    url         a SandboxFusion server that runs the code instead of the sandbox
    """

    credit: Credit = "all"
    extract: Extract = "fenced"
    time_s: float = 4.0
    total_s: float = 12.0
    memory_mb: int = 1024
    tolerance: float = 1e-6
    isolation: Level = "filtered"
    url: str | None = None

    def __post_init__(self) -> None:
        levels = tuple(level for level in LEVELS if level != "remote")
        known = {"credit": get_args(Credit), "extract": get_args(Extract), "isolation": levels}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} is one of {', '.join(values)}, not {getattr(self, name)!r}")
        for name in ("time_s", "total_s"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < math.inf:
                raise ValueError(f"{name} is a number of seconds above 0, not {number!r}")
        tolerance = self.tolerance
        if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 <= tolerance < 1:
            raise ValueError(f"tolerance is a relative difference from 0 to 1, not {tolerance!r}")


@with_fields_of(settings=CodeSettings)
def check_code(answer: Any, settings: CodeSettings) -> None:
    """Raise ValueError if `answer` holds no tests that can be run, or an argument of the reward has no such value."""
    executor_for(settings.url, settings.isolation, settings.memory_mb)
    read_tests(answer)


def _start(url: str | None, isolation: Level, memory_mb: int, **_: Any) -> None:
    """Start the sandbox with the worker, and refuse a machine where it is not safe enough."""
    executor_for(url, isolation, memory_mb).isolation  # noqa: B018


def _nothing() -> None:
    """The answer column holds tests; a solution may stand in the column that `evaluate.gold` names."""


@stated_by(_nothing)
@stops_after("total_s")
@checked_by(check_code)
@prepared_by(_start)
@with_fields_of(settings=CodeSettings)
def code(completion: str, answer: Any, settings: CodeSettings) -> Scored:
    """1 if the code of `completion` passes all the tests in `answer`, else 0 or, with credit "share", the share passed.

    `CodeSettings` says what the further arguments are, `code.tests` what `answer` may be. Raises ValueError for tests
    that cannot be run, InfrastructureError when the sandbox fails.
    """
    text = extract_code(completion, settings.extract)
    if text is None:
        return Scored(0.0, "no_code")
    share = settings.credit == "share"
    rules = Rules(settings.time_s, settings.total_s, settings.tolerance, every=share)
    executor = executor_for(settings.url, settings.isolation, settings.memory_mb)
    graded = grade(text, _tests(answer), executor, rules)
    passed = graded.passed / graded.total
    return Scored(passed if share else float(passed == 1.0), graded.verdict)


_executors: dict[tuple[str | None, Level, int], Executor] = {}


def executor_for(url: str | None, isolation: Level, memory_mb: int) -> Executor:
    """The executor of this process for these settings; it starts with the first use."""
    key = (url, isolation, memory_mb)
    if key not in _executors:
        limits = Limits(memory_mb=memory_mb)
        _executors[key] = Sandbox(limits, minimum=isolation) if url is None else RemoteSandbox(url, limits)
    return _executors[key]


def close_executors() -> None:
    """End the executors of this process, as its own end does. The next use makes new ones."""
    while _executors:
        _executors.popitem()[1].close()


_last: list[tuple[Any, CodeTests]] = []


def _tests(answer: Any) -> CodeTests:
    """All completions of a group have the same tests: read them once."""
    if not _last or _last[0][0] is not answer:
        _last[:] = [(answer, read_tests(answer))]
    return _last[0][1]
