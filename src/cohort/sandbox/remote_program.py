"""The program that a remote executor is sent to call a function: it stands alone there, after the text of `values` and
`functions`.

One line of standard input is the job. Each answer is a line of standard output that begins with the job's mark; what
else the candidate prints is in between and is passed over.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

from cohort.sandbox.functions import built_in, compiled, find, said
from cohort.sandbox.values import decode, encode

__all__ = ["main"]


def main() -> None:
    """Read the job, answer one case after the other. A case that takes too long ends the process by SIGALRM."""
    job = json.loads(sys.stdin.readline())
    namespace: dict[str, Any] = {"__name__": "solution"}
    problem: BaseException | None = None
    signal.setitimer(signal.ITIMER_REAL, job["time_s"])
    try:
        namespace["__builtins__"] = built_in()
        exec(compiled(job["code"]), namespace)
    except BaseException as error:
        problem = error
    for index, case in enumerate(job["cases"]):
        signal.setitimer(signal.ITIMER_REAL, job["time_s"])
        try:
            if problem is not None:
                raise problem
            value = find(job["function"], namespace)(*decode(bytes.fromhex(case)))
            answer = "value " + encode(value, job["most"]).hex()
        except MemoryError:
            answer = "memory "
        except BaseException as error:
            answer = "error " + said(error).hex()
        print(f"\n{job['mark']} {index} {answer}", flush=True)
