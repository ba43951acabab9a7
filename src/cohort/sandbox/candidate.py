"""The candidate's process, once it is confined: run its program, or call its function.

Nothing here is trusted afterwards. The candidate shares this process and may rewrite all of it; what it then sends are
answers to questions whose right answers it has never seen.
"""

from __future__ import annotations

import atexit
import builtins
import importlib
import json
import random
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from cohort.sandbox.functions import FILE, answers, compiled, failure
from cohort.sandbox.wire import ERROR, MEMORY, VALUE, read_frame, write_frame

_KINDS = {"value": VALUE, "error": ERROR, "memory": MEMORY}


def serve(jobs: int, results: int, most: int) -> int:
    """Do the one job that arrives on the pipe `jobs`; returns the exit status. Values have at most `most` bytes."""
    frame = read_frame(jobs)
    if frame is None:  # nobody wants it any more
        return 0
    job = json.loads(frame[1])
    random.seed(0)  # else every process would go on with the launcher's state
    atexit._clear()
    sys.argv = [FILE]
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]  # the module `site`, left out, has them
    for name in [name for name in sys.modules if name.partition(".")[0] == "cohort"]:
        del sys.modules[name]
    module = ModuleType("__main__" if job["function"] is None else "solution")
    sys.modules[module.__name__] = module
    if job["function"] is None:
        return _program(job["code"], module.__dict__, results)
    cases = (frame[1] for frame in iter(lambda: read_frame(jobs), None))  # until the pipe ends
    for kind, content in answers(job["code"], job["function"], module.__dict__, cases, most):
        write_frame(results, _KINDS[kind], content)
    return 0


def _program(code: str, namespace: dict[str, Any], results: int) -> int:
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", errors="surrogateescape")  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = ours = open(1, "w", encoding="utf-8", newline="\n")  # type: ignore[misc]  # noqa: SIM115
    status = _guarded(lambda: exec(compiled(code), namespace), results)
    status = _guarded(_as_at_exit, results) or status
    for stream in (sys.stdout, ours):
        status = _guarded(stream.flush, results) or status
    return status


def _as_at_exit() -> None:
    """What the interpreter would do: wait for threads, then call what is registered."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()


def _guarded(action: Callable[[], object], results: int) -> int:
    """Do it and give the exit status; what it raises is reported."""
    try:
        action()
    except BaseException as error:
        if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            return (error.code or 0) & 0xFF
        kind, content = failure(error)
        write_frame(results, _KINDS[kind], content)
        return 1
    return 0


# Programs import these most, so they find them loaded.
_COMMON = (
    "array", "bisect", "cmath", "collections", "copy", "dataclasses", "datetime", "decimal", "enum", "fractions",
    "functools", "heapq", "io", "itertools", "math", "operator", "queue", "re", "statistics", "string", "textwrap",
    "time", "typing",
)  # fmt: skip
for _name in _COMMON:
    importlib.import_module(_name)
