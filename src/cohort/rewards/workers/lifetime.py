"""A process that must not outlive the one that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

__all__ = ["die_with", "leave"]

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Make sure that this process ends with `parent`, however that ends and whatever this one is doing."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it died before we could ask
        leave()


def leave() -> None:
    """Leave at once: no thread or exit handler may keep the process."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(0)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    leave()
