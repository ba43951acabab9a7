"""The worst step, rehearsed before the first one in a copy of this process: whether it fits is known within a minute.

The copy shares all memory until one of the two writes to it, so what it does to weights, optimizer or caches is nobody
else's, and where the system ends it for want of memory, the run is there to say so.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from cohort.preflight.memory import machine_gb
from cohort.wording import one_line

MOST_S = 60.0  # so long it may take
LEFT = 0.03  # of the machine's memory: where less is free, others suffer


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What came of it: the most memory that was resident, in GB (1e9 bytes), whether that was too much, and an error
    that was no lack of memory.
    """

    gb: float
    fits: bool
    error: str = ""


def can_rehearse() -> bool:
    """Whether there are copies of processes here (Linux), and nothing that does not survive one (CUDA)."""
    return sys.platform == "linux" and not torch.cuda.is_available()


def free_gb() -> float:
    """The memory that this process may have, in GB: what it has, and what is free."""
    return min(machine_gb(), (psutil.Process().memory_info().rss + psutil.virtual_memory().available) / 1e9)


def rehearse(act: Callable[[], None], limit_gb: float) -> Rehearsed | None:
    """Do `act` in a copy of this process that ends as soon as it takes more than `limit_gb`. None: a minute was not
    enough to see.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _in_copy(act, write)
    os.close(write)
    began, peak, ended = time.monotonic(), 0.0, None
    try:
        while ended is None and time.monotonic() - began < MOST_S:
            with contextlib.suppress(OSError, StopIteration):
                peak = max(peak, _peak_gb(child))
            now = psutil.virtual_memory()
            if peak > limit_gb or now.available < LEFT * now.total:
                return Rehearsed(peak, fits=False)
            time.sleep(0.02)
            pid, status = os.waitpid(child, os.WNOHANG)
            ended = os.waitstatus_to_exitcode(status) if pid else None
        if ended is None:
            return None
        said = os.read(read, 1000).decode("utf-8", "replace")
        return Rehearsed(peak, fits=ended != -signal.SIGKILL, error=said)
    finally:
        os.close(read)
        if ended is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _in_copy(act: Callable[[], None], write: int) -> None:
    """In the copy: act, say what went wrong, and end without anything that belongs to the run."""
    try:
        with contextlib.suppress(OSError):  # where memory is short, the copy goes first
            Path("/proc/self/oom_score_adj").write_text("1000", "utf-8")
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        torch.set_num_threads(1)  # the threads of the process are not in its copy
        act()
    except BaseException as error:
        os.write(write, f"{type(error).__name__}: {one_line(error)}"[:900].encode())
    finally:
        os._exit(0)


def _peak_gb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024 / 1e9
