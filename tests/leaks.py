"""What untrusted code, or the sandbox itself, could leave behind on this machine. Also used by bench/scoring.py.

Others may use sandboxes at the same time. A keeper says in its command line which process it is for, and what it makes
on disk has its process id in the name: what belongs to a living process that is not ours is left out.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import psutil

__all__ = ["left_behind", "nothing_more_than", "of_this_process"]

_KEEPER = re.compile(r"cohort\.sandbox\.keeper.* # for process (\d+)")
_MADE = re.compile(r"cohort-(?:sandbox-)?(\d+)")

Found = Mapping[str, frozenset[str]]


def left_behind() -> Found:
    """Launchers and their candidates, temporary directories, control groups, mounts, shared memory, and this process's
    descriptors.
    """
    keepers = dict(_keepers())
    places = {Path(tempfile.gettempdir()), Path("/tmp")}  # a keeper has no environment, so no TMPDIR
    return {
        "processes": frozenset(str(pid) for pid, grader in keepers.items() if _ours_or_nobodys(grader)),
        "directories": _made((made for place in places for made in place.glob("cohort-sandbox-*")), keepers),
        "control groups": _made(Path("/sys/fs/cgroup").glob("**/cohort-*"), keepers),
        "mounts": frozenset(Path("/proc/self/mountinfo").read_text().splitlines()),
        "shared memory": frozenset(os.listdir("/dev/shm")),
        "descriptors": _numbered(psutil.Process().num_fds()),
    }


def of_this_process() -> Found:
    """Its children, threads and descriptors. Fewer than before is no leak: garbage is collected late."""
    children = psutil.Process().children(recursive=True)
    return {
        "processes": frozenset(str(process.pid) for process in children if _lives(process)),
        "threads": _numbered(threading.active_count()),
        "descriptors": _numbered(psutil.Process().num_fds()),
    }


def nothing_more_than(before: Found, patience_s: float = 10.0, look: Callable[[], Found] = left_behind) -> None:
    """Raise AssertionError when `look` finds more than before. What ends by itself has some seconds to do so."""
    deadline = time.monotonic() + patience_s
    while more := _more(before, look()):
        assert time.monotonic() < deadline, f"left behind: {more}"
        time.sleep(0.05)


def _more(before: Found, now: Found) -> Found:
    return {kind: found - before[kind] for kind, found in now.items() if len(found) > len(before[kind])}


def _numbered(count: int) -> frozenset[str]:
    return frozenset(map(str, range(count)))


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _keepers() -> Iterable[tuple[int, int]]:
    """Process ids of keepers, launchers and candidates, and of the process that each is for."""
    for process in psutil.process_iter(["cmdline", "status"]):
        found = _KEEPER.search(" ".join(process.info["cmdline"] or ()))
        if found and process.info["status"] != psutil.STATUS_ZOMBIE:
            yield process.pid, int(found[1])


def _ours_or_nobodys(process: int) -> bool:
    try:
        return os.getpid() in (process, *(parent.pid for parent in psutil.Process(process).parents()))
    except psutil.NoSuchProcess:
        return True


def _made(paths: Iterable[Path], keepers: Mapping[int, int]) -> frozenset[str]:
    """Those of our keepers, and of keepers that are gone."""
    found = ((path, int(match[1])) for path in paths if (match := _MADE.match(path.name)))
    return frozenset(str(path) for path, keeper in found if keeper not in keepers or _ours_or_nobodys(keepers[keeper]))
