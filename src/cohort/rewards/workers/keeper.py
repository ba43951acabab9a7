"""The keeper: a worker's parent, which ends whatever the worker has started, in sessions of its own too.

    trainer -- keeper -- worker -- what a reward starts

On Linux orphans become children of the keeper. It ends them when the worker has ended, when the trainer says so
(SIGTERM), and when the trainer has died. Elsewhere there is no keeper, and only the worker's own session is ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import NoReturn

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_PATIENCE_S = 5.0  # for keepers of sandboxes, which see that their grader is gone, clean up and end by themselves


def keep(channel: int, parent: int) -> int:
    """Become a worker with a keeper above it, both of `parent`; gives the id of the worker's own parent. `channel` is
    the worker's alone, so that the other side sees when it ends. To be called before there are threads.
    """
    if sys.platform != "linux":
        return parent
    import ctypes

    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    keeper, worker = os.getpid(), os.fork()
    if worker == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        return keeper
    status = 0
    try:
        os.close(channel)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        ended = 0
        while ended != worker and os.getppid() == parent:
            ended, status = os.wait()  # it reaps orphans on the way
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end_children()
        _end_as(status)


def _end_children() -> None:
    """Kill and reap all children, and those that become so when their parents end."""
    deadline = time.monotonic() + _PATIENCE_S
    with contextlib.suppress(ChildProcessError):
        while True:
            for child in _children():
                if time.monotonic() > deadline or not _is_sandbox(child):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(child, signal.SIGKILL)
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
            time.sleep(0.002)


def _children() -> list[int]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, IndexError), open(f"/proc/{entry}/stat", "rb") as file:
            if int(file.read().rpartition(b")")[2].split()[1]) == os.getpid():
                found.append(int(entry))
    return found


def _is_sandbox(process: int) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{process}/cmdline", "rb") as file:
        return b"cohort.sandbox" in file.read()
    return False


def _end_as(status: int) -> NoReturn:
    """End as the worker did, so that whoever waits for this process learns how that was."""
    if os.WIFSIGNALED(status):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)
