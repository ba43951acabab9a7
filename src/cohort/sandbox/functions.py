"""Finding and calling a function in a candidate's code: in a process of this machine, and, as a program that stands
alone there after the text of `values`, on another.
"""

from __future__ import annotations

import builtins
import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from types import CodeType
from typing import Any

from cohort.sandbox.values import decode, encode

FILE = "solution.py"
# Starter codes of function tasks name these without importing them, as the sites that they come from do.
_PRELUDE = """
from typing import *
import bisect, collections, datetime, functools, heapq, itertools, math, operator, random, re, string, sys
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
"""


def main() -> None:
    """On another machine: one line of standard input is the job. Each answer is a line of standard output that begins
    with the job's mark; what else the candidate prints is in between and is passed over. A case that takes too long
    ends the process by SIGALRM.
    """
    job = json.loads(sys.stdin.readline())

    def cases() -> Iterator[bytes]:
        for case in job["cases"]:
            signal.setitimer(signal.ITIMER_REAL, job["time_s"])
            yield bytes.fromhex(case)

    signal.setitimer(signal.ITIMER_REAL, job["time_s"])
    given = answers(job["code"], job["function"], {"__name__": "solution"}, cases(), job["most"])
    for index, (kind, content) in enumerate(given):
        print(f"\n{job['mark']} {index} {kind} {content.hex()}", flush=True)


def answers(
    code: str, name: str, namespace: dict[str, Any], cases: Iterable[bytes], most: int
) -> Iterator[tuple[str, bytes]]:
    """Run the code in `namespace`, then call its function with the arguments of each case. Yields the "value", encoded
    in at most `most` bytes, or what `failure` says: for every case, where the code itself fails.
    """
    problem: BaseException | None = None
    try:
        # Not in the namespace itself, because a task's `gcd` or `factorial` must be the candidate's to be found there.
        names: dict[str, Any] = {}
        exec(compiled(_PRELUDE), names)
        namespace["__builtins__"] = {**names, **vars(builtins)}  # Python's own names win
        exec(compiled(code), namespace)
        _find(name, namespace)
    except BaseException as error:
        problem = error
    for case in cases:
        try:
            if problem is not None:
                raise problem
            answer = "value", encode(_find(name, namespace)(*decode(case)), most)
        except BaseException as error:
            answer = failure(error)
        yield answer


def compiled(code: str) -> CodeType:
    """The candidate's code, without the future features of this module. Raises SyntaxError, and what hostile code can
    make the compiler raise.
    """
    return compile(code, FILE, "exec", dont_inherit=True)


def _find(name: str, namespace: dict[str, Any]) -> Callable[..., Any]:
    """The function `name`, else the method of that name of a new `Solution`."""
    if callable(namespace.get(name)):
        return namespace[name]
    solution = namespace.get("Solution")
    if isinstance(solution, type) and hasattr(solution, name):
        return getattr(solution(), name)
    raise NameError(f"there is no function '{name}'")


def failure(error: BaseException) -> tuple[str, bytes]:
    """What an exception comes to: "memory", or "error" and `ValueError: bad at line 3` in at most 500 bytes."""
    if isinstance(error, MemoryError):
        return "memory", b""
    try:
        text = f"{type(error).__name__}: {error}"[:400]
    except BaseException:  # its __str__ is the candidate's
        text = "an exception without words"
    lines, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == FILE:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    if lines:
        text += f" at line {lines[-1]}"
    return "error", text.encode("utf-8", "replace")[:500]
