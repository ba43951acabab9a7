"""Ending what a candidate has left behind, where it could start processes at all."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

__all__ = ["adopt_orphans", "end_children", "kill"]

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """On Linux: daemons that lose their parent become children of this process."""
    if sys.platform == "linux":
        from cohort.sandbox.linux.calls import prctl

        prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill(process: int) -> None:
    """Kill a process and its process group."""
    for send in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            send(process, signal.SIGKILL)


def end_children() -> None:
    """Kill and wait for all children of this process, also those that come while it does so."""
    while children := _children():
        for child in children:
            kill(child)
        for child in children:
            with suppress(ChildProcessError):
                os.waitpid(child, 0)
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _children() -> list[int]:
    """From /proc, which other systems than Linux do not have."""
    found = []
    for entry in os.listdir("/proc") if sys.platform == "linux" else ():
        with suppress(OSError, IndexError, ValueError), open(f"/proc/{int(entry)}/stat") as file:
            if int(file.read().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(entry))
    return found
