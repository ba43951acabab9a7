"""Does the code pass its tests? Run in the sandbox, judged outside of it.

The code is the last block of the text that is fenced as Python, ```python to ```; a block that is not closed is none.
The label says what became of the first test that failed, else "right":

    right   wrong   no_code
    error                   it raised, exited with another status than 0, crashed, or wrote too much
    timeout     memory      it took too much

When the sandbox fails there is no score: InfrastructureError.
"""

from __future__ import annotations

import math
import re
import textwrap
from typing import Any, Literal, get_args

from cohort.rewards.items import Scored
from cohort.rewards.marks import checked_by, prepared_by, stated_by, stops_after
from cohort.rewards.verifiers.code.grade import Rules, grade
from cohort.rewards.verifiers.code.tests import CodeTests, read_tests
from cohort.sandbox import LEVELS, Executor, Level, Limits, RemoteSandbox, Sandbox
from cohort.types import InfrastructureError

__all__ = ["check_code", "close_executors", "code", "executor_for", "extract_code"]

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


def check_code(
    answer: Any,
    credit: Credit = "all",
    extract: Extract = "fenced",
    time_s: float = 4.0,
    total_s: float = 12.0,
    memory_mb: int = 1024,
    tolerance: float = 1e-6,
    isolation: Level = "filtered",
    url: str | None = None,
) -> None:
    """Raise ValueError if `answer` holds no tests that can be run, or an argument of the reward has no such value."""
    local = tuple(level for level in LEVELS if level != "remote")
    for name, value, known in (
        ("credit", credit, get_args(Credit)),
        ("extract", extract, get_args(Extract)),
        ("isolation", isolation, local),
    ):
        if value not in known:
            raise ValueError(f"{name} is one of {', '.join(known)}, not {value!r}")
    for name, number in (("time_s", time_s), ("total_s", total_s)):
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < math.inf:
            raise ValueError(f"{name} is a number of seconds above 0, not {number!r}")
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is a relative difference from 0 to 1, not {tolerance!r}")
    executor_for(url, isolation, memory_mb)
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
def code(
    completion: str,
    answer: Any,
    credit: Credit = "all",
    extract: Extract = "fenced",
    time_s: float = 4.0,
    total_s: float = 12.0,
    memory_mb: int = 1024,
    tolerance: float = 1e-6,
    isolation: Level = "filtered",
    url: str | None = None,
) -> Scored:
    """1 if the code of `completion` passes all the tests in `answer`, else 0 or, with credit "share", the share passed.

    `extract` "whole" takes the whole completion as code. `time_s` and `total_s`: seconds of processor time for one test
    and for all. `tolerance`: relative, where a decimal is wanted. `isolation`: the level that the sandbox must reach;
    `url`: a SandboxFusion server that runs the code instead. `code.tests` says what `answer` may be.
    Raises ValueError for tests that cannot be run, InfrastructureError when the sandbox fails.
    """
    text = extract_code(completion, extract)
    if text is None:
        return Scored(0.0, "no_code")
    rules = Rules(time_s, total_s, tolerance, every=credit == "share")
    graded = grade(text, _tests(answer), executor_for(url, isolation, memory_mb), rules)
    if graded.verdict == "sandbox_error":
        raise InfrastructureError(graded.message)
    share = graded.passed / graded.total
    return Scored(share if credit == "share" else float(share == 1.0), graded.verdict)


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
