"""The launcher: a small process that starts the candidates' processes, confines them, and sees to their end.

The launcher knows only how to start a process. Code, input and results go through pipes that it hands on without
reading them, so the memory that a candidate inherits holds nothing of the candidates before it.
"""

from __future__ import annotations

import functools
import gc
import math
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from cohort.sandbox import candidate
from cohort.sandbox.channel import Channel
from cohort.sandbox.confine import Confinement, may_truncate, readable_directories
from cohort.sandbox.contract import Isolation, Limits
from cohort.sandbox.linux import landlock, namespaces, seccomp
from cohort.sandbox.linux.calls import drop_bounding_set
from cohort.sandbox.linux.cgroups import Cgroup
from cohort.sandbox.probe import probe
from cohort.sandbox.spawn import spawn
from cohort.sandbox.strays import adopt_orphans, end_children, kill

__all__ = ["establish", "remove_tree", "serve"]

_DIRECTORY = "/tmp"  # the candidate's, in its own root
_SPARE_TASKS = 256  # other programs of the same user may start so many tasks meanwhile
_POLL_S = 0.02  # how often to look for the end of a process on a system without pidfd


def establish(
    limits: Limits, missing: dict[str, str], directory: str | None, group: Cgroup | None, map_ids: Callable[[], None]
) -> tuple[Confinement, Isolation]:
    """Find out what confines a process here, with namespaces if no `directory` on disk is given for it to work in.

    `missing` are the features to do without. Raises OSError when a process confined in this way does not work. Returns
    in another process than it was called in.
    """
    reached = []
    if group is not None:
        try:
            group.join()
            reached.append("cgroup")
        except OSError as error:
            missing["cgroup"] = str(error)
    readable = readable_directories()
    version = _landlock_version(missing)
    filtered = _has_seccomp(missing)
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
    with _fresh_directory(how) as probed:
        reached += [feature for feature in probe(probed) if feature not in missing]
    if "namespaces" in missing:
        missing |= dict.fromkeys(("mount", "network", "pid", "user"), missing["namespaces"])
        del missing["namespaces"]
    return how, Isolation.of(reached, missing)


def _landlock_version(missing: dict[str, str]) -> int:
    if "landlock" not in missing:
        try:
            return landlock.abi()
        except OSError as error:
            missing["landlock"] = str(error)
    return 0


def _has_seccomp(missing: dict[str, str]) -> bool:
    if "seccomp" not in missing:
        try:
            seccomp.available()
            return True
        except OSError as error:
            missing["seccomp"] = str(error)
        except KeyError:
            missing["seccomp"] = f"there is no table of system calls for {seccomp.MACHINE}"
    return False


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


@contextmanager
def _fresh_directory(how: Confinement) -> Iterator[Confinement]:
    """A directory for one run, on disk, where the process cannot mount one."""
    if how.namespaces:
        yield how
        return
    directory = tempfile.mkdtemp(dir=how.directory)
    try:
        yield replace(how, directory=directory)
    finally:
        remove_tree(directory)


def remove_tree(directory: str) -> None:
    """Remove a directory, however a candidate has filled it."""
    try:
        os.rmdir(directory)
    except OSError:
        subprocess.run(["rm", "-rf", "--", directory], check=True)  # shutil.rmtree has its limit of depth


def serve(channel: Channel, how: Confinement) -> None:
    """Run what the grader sends until it is gone."""
    adopt_orphans()
    task = functools.partial(candidate.serve, most=how.limits.output_kb << 10)
    while (request := channel.receive()) is not None:
        if "run" not in request:  # it came too late
            continue
        try:
            with _fresh_directory(how) as confinement:
                child = spawn(confinement, channel.descriptors, request["cpu_s"], task)
                channel.close_descriptors()
                ended = _until_end(channel, request["run"], child, alone=how.namespaces or how.seccomp)
        except OSError as error:  # no process, no memory, no disk
            channel.close_descriptors()
            channel.send(run=request["run"], failed=str(error))
        else:
            channel.send(run=request["run"], **ended)


def _until_end(channel: Channel, run: int, child: int, alone: bool) -> dict[str, Any]:
    """Wait for the process to end, or kill it when the grader says so or is gone. `alone`: it cannot have children."""
    poller = select.poll()
    poller.register(channel.connection, select.POLLIN)
    watched = os.pidfd_open(child) if hasattr(os, "pidfd_open") else None
    if watched is not None:
        poller.register(watched, select.POLLIN)
    try:
        while True:
            pid, status, usage = os.wait4(child, os.WNOHANG)
            if pid:
                break
            patience = 0 if channel.waiting() else None if watched is not None else _POLL_S * 1e3
            ready = [number for number, _ in poller.poll(patience)]
            if channel.waiting() or channel.connection.fileno() in ready:
                message = channel.receive()
                if message is None:
                    poller.unregister(channel.connection)
                if message is None or message.get("kill") == run:
                    kill(child)
                elif message.get("ask") == run:
                    with suppress(ProcessLookupError):  # it has ended just now, which answers that
                        channel.send(run=run, used_s=_used_s(child))
    finally:
        if watched is not None:
            os.close(watched)
    if not alone:
        kill(child)  # its group
        end_children()
    signalled = os.WIFSIGNALED(status)
    return {
        "signal": os.WTERMSIG(status) if signalled else None,
        "exit": None if signalled else os.WEXITSTATUS(status),
        "used_s": usage.ru_utime + usage.ru_stime,
    }


def _used_s(child: int) -> float:
    """The processor time of a process that runs, or has ended and is not waited for."""
    if sys.platform != "linux":
        return math.inf  # unknown on this system: the time by the clock then counts
    try:
        return time.clock_gettime((~child << 3) | 2)  # clock_getcpuclockid(3)
    except OSError as error:
        raise ProcessLookupError from error
