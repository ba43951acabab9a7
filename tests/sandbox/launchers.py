"""Looking at the processes of a sandbox."""

from __future__ import annotations

import time
from collections.abc import Iterable

import psutil

from cohort.sandbox import Limits, Sandbox

__all__ = ["SMALL", "launcher_processes", "wait_until_gone"]

SMALL = Limits(memory_mb=256)


def launcher_processes(sandbox: Sandbox) -> list[psutil.Process]:
    """The keeper and all that is beneath it."""
    keeper = psutil.Process(sandbox._launcher._process.pid)
    return [keeper, *keeper.children(recursive=True)]


def wait_until_gone(processes: Iterable[psutil.Process], seconds: float = 10.0) -> None:
    """Raise AssertionError when they are still there after so long."""
    deadline = time.monotonic() + seconds
    while alive := [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.02)
