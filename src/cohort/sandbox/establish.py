"""What confines a process on this machine, and whether it does: a level of isolation is what was tried, not asked."""

from __future__ import annotations

import gc
import importlib
import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from cohort.sandbox.confine import Confinement, may_truncate, readable_directories
from cohort.sandbox.contract import Isolation, Limits
from cohort.sandbox.launcher import fresh_directory, spawn
from cohort.sandbox.linux import landlock, namespaces, seccomp
from cohort.sandbox.linux.calls import drop_bounding_set
from cohort.sandbox.linux.cgroups import Cgroup
from cohort.sandbox.wire import FAILED, READY, VALUE, read_frame, write_frame

_DIRECTORY = "/tmp"  # the candidate's, in its own root
_SPARE_TASKS = 256  # other programs of the same user may start so many tasks meanwhile

Result = TypeVar("Result")


def attempt(feature: str, missing: dict[str, str], action: Callable[[], Result]) -> Result | None:
    """What the action returns. Where it fails, `missing` gets the reason; a feature that is in there is not tried."""
    if feature not in missing:
        try:
            return action()
        except (OSError, KeyError) as error:
            missing[feature] = str(error)
    return None


def establish(
    limits: Limits, missing: dict[str, str], directory: str | None, group: Cgroup | None, map_ids: Callable[[], None]
) -> tuple[Confinement, Isolation]:
    """Find out what confines a process here, with namespaces if no `directory` on disk is given for it to work in.

    `missing` are the features to do without. Raises OSError when a process confined in this way does not work. Returns
    in another process than it was called in.
    """
    if group is not None:
        attempt("cgroup", missing, group.join)
    reached = ["cgroup"] if "cgroup" not in missing else []
    readable = readable_directories()
    version = attempt("landlock", missing, landlock.abi) or 0
    attempt("seccomp", missing, seccomp.available)
    filtered = "seccomp" not in missing
    becomes_nobody = os.geteuid() == 0 and "unprivileged" not in missing
    others = _tasks_of(namespaces.NOBODY if becomes_nobody else os.geteuid())
    if directory is None:
        missing.update(namespaces.enter(readable, _DIRECTORY, map_ids))
        reached += [feature for feature in ("network", "user") if feature not in missing]
        if os.fork():  # the child is the first process of the launcher's own pid namespace
            os._exit(0)
    to_nobody = os.geteuid() == 0 and "unprivileged" not in missing
    # The limit is on all tasks of a user. Inside a user namespace those are the launcher and the candidate.
    tasks = limits.threads + 2 if "user" in reached else others and others + limits.threads + _SPARE_TASKS
    how = Confinement(limits, readable, directory or _DIRECTORY, directory is None, version, filtered, to_nobody, tasks)
    if sys.platform == "linux":
        drop_bounding_set()
    if filtered and how.namespaces:
        seccomp.program(seccomp.MACHINE, 1, may_truncate(how))  # cached, so that every process inherits the filter
    gc.freeze()  # else the garbage collector would touch, and so copy, the memory that all processes share
    with fresh_directory(how) as probed:
        reached += [feature for feature in _probe(probed) if feature not in missing]
    if "namespaces" in missing:
        missing |= dict.fromkeys(("mount", "network", "pid", "user"), missing["namespaces"])
        del missing["namespaces"]
    return how, Isolation.of(reached, missing)


def _tasks_of(user: int) -> int | None:
    """How many tasks a user has on this machine; None where nobody says."""
    if sys.platform != "linux":
        return None
    count = 1
    for entry in os.listdir("/proc"):
        with suppress(OSError):
            if entry.isdigit() and os.stat(f"/proc/{entry}").st_uid == user:
                count += len(os.listdir(f"/proc/{entry}/task"))
    return count


def _probe(how: Confinement) -> list[str]:
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
    wanted = {"landlock": how.landlock, "seccomp": how.seccomp, "mount": how.namespaces, "pid": how.namespaces}
    for feature, holds in wanted.items():
        if holds and not found[feature]:
            raise OSError(f"{feature} was set up but does not hold")
    return [feature for feature, holds in found.items() if holds]


def _look(_: int, results: int) -> int:
    found = {
        "python": _raised(lambda: importlib.import_module("wave")) is None,  # any module that is not loaded yet
        "landlock": _refused(lambda: os.listdir("/")),
        "seccomp": _refused(lambda: socket.socket(socket.AF_UNIX)) and _refused(os.fork),
        "mount": not os.path.exists(__file__),
        "pid": os.getpid() == 1,
        "unprivileged": os.geteuid() != 0,
    }
    write_frame(results, VALUE, json.dumps(found).encode())
    return 0


def _refused(action: Callable[[], object]) -> bool:
    return isinstance(_raised(action), PermissionError)


def _raised(action: Callable[[], object]) -> Exception | None:
    try:
        action()
    except Exception as error:
        return error
    return None
