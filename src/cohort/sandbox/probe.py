"""What a confined process can really do. A level of isolation is what was tried, not what was asked for."""

from __future__ import annotations

import importlib
import json
import os
import socket
from collections.abc import Callable

from cohort.sandbox.confine import Confinement
from cohort.sandbox.pipes import FAILED, READY, VALUE, read_frame, write_frame
from cohort.sandbox.spawn import spawn

__all__ = ["probe"]


def probe(how: Confinement) -> list[str]:
    """Start a process as candidates are started and see what holds. Raises OSError if it cannot work at all."""
    null = os.open(os.devnull, os.O_RDWR)
    reading, writing = os.pipe()
    try:
        child = spawn(how, (null, null, null, writing), cpu_s=10, task=_look)
        os.close(writing)
        first, second = read_frame(reading), read_frame(reading)
        os.waitpid(child, 0)
    finally:
        os.close(reading)
        os.close(null)
    if first is None or second is None or first[0] != READY:
        words = first[1].decode() if first is not None and first[0] == FAILED else "it ended before it could speak"
        raise OSError(f"a confined process does not work: {words}")
    found: dict[str, bool] = json.loads(second[1])
    if not found.pop("python"):
        raise OSError("a confined process cannot read Python's library")
    wanted = {
        "landlock": bool(how.landlock),
        "seccomp": how.seccomp,
        "mount": how.namespaces,
        "pid": how.namespaces,
    }
    for feature, holds in wanted.items():
        if holds and not found[feature]:
            raise OSError(f"{feature} was set up but does not hold")
    return [feature for feature, holds in found.items() if holds]


def _look(_: int, results: int) -> int:
    found = {
        "python": _works(lambda: importlib.import_module("wave")),  # any module that is not loaded yet
        "landlock": _refused(lambda: os.listdir("/")),
        "seccomp": _refused(lambda: socket.socket(socket.AF_UNIX)) and _refused(os.fork),
        "mount": not os.path.exists(__file__),
        "pid": os.getpid() == 1,
        "unprivileged": os.geteuid() != 0,
    }
    write_frame(results, VALUE, json.dumps(found).encode())
    return 0


def _works(action: Callable[[], object]) -> bool:
    try:
        action()
    except Exception:
        return False
    return True


def _refused(action: Callable[[], object]) -> bool:
    try:
        action()
    except PermissionError:
        return True
    return False
