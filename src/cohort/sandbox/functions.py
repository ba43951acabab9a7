"""Finding and calling a function in a candidate's code; shared by the processes on this machine and on others."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from types import CodeType
from typing import Any

__all__ = ["FILE", "built_in", "compiled", "find", "said"]

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


def compiled(code: str) -> CodeType:
    """The candidate's code, without the future features of this module. Raises SyntaxError, and what hostile code can
    make the compiler raise.
    """
    return compile(code, FILE, "exec", dont_inherit=True)


def built_in() -> dict[str, Any]:
    """What is built in for a candidate's function: Python's own names, which win, and those of the starter codes.

    They are not in its namespace, because a task's `gcd` or `factorial` must be the candidate's to be found there.
    """
    names: dict[str, Any] = {}
    exec(compiled(_PRELUDE), names)
    return {**names, **vars(builtins)}


def find(name: str, namespace: dict[str, Any]) -> Callable[..., Any]:
    """The function `name`, else the method of that name of a new `Solution`. Raises NameError."""
    if callable(namespace.get(name)):
        return namespace[name]
    solution = namespace.get("Solution")
    if isinstance(solution, type) and hasattr(solution, name):
        return getattr(solution(), name)
    raise NameError(f"there is no function '{name}'")


def said(error: BaseException) -> bytes:
    """`ValueError: bad at line 3`, at most 500 bytes."""
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
    return text.encode("utf-8", "replace")[:500]
