"""The launcher: a small process that starts the candidates' processes, confines them, and sees to their end.

The launcher knows only how to start a process. Code, input and results go through pipes that it hands on without
reading them, so the memory that a candidate inherits holds nothing of the candidates before it.
"""

from __future__ import annotations

import fcntl
import functools
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from cohort.sandbox import candidate
from cohort.sandbox.confine import Confinement, confine
from cohort.sandbox.linux.calls import prctl
from cohort.sandbox.linux.namespaces import forked_into_pid_namespace
from cohort.sandbox.wire import FAILED, READY, Channel, write_frame

_PR_SET_CHILD_SUBREAPER = 36
_JOBS, _RESULTS, _FIRST_OTHER = 3, 4, 5  # descriptors of a candidate's process
_OUT_OF_THE_WAY = 16
_POLL_S = 0.02  # how often to look for the end of a process on a system without pidfd


@contextmanager
def fresh_directory(how: Confinement) -> Iterator[Confinement]:
    """Yields the confinement with a directory for one run, on disk where the process cannot mount one."""
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
            with fresh_directory(how) as confinement:
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
                    _kill(child)
                elif message.get("ask") == run and (used_s := _used_s(child)) is not None:
                    channel.send(run=run, used_s=used_s)
    finally:
        if watched is not None:
            os.close(watched)
    if not alone:
        _kill(child)  # its group
        end_children()
    signalled = os.WIFSIGNALED(status)
    return {
        "signal": os.WTERMSIG(status) if signalled else None,
        "exit": None if signalled else os.WEXITSTATUS(status),
        "used_s": usage.ru_utime + usage.ru_stime,
    }


def _used_s(child: int) -> float | None:
    """The processor time of a process that is not waited for yet; None where it has ended, which answers the rest."""
    if sys.platform != "linux":
        return math.inf  # unknown on this system: the time by the clock then counts
    with suppress(OSError):
        return time.clock_gettime((~child << 3) | 2)  # clock_getcpuclockid(3)
    return None


def spawn(how: Confinement, descriptors: Sequence[int], cpu_s: int, task: Callable[[int, int], int]) -> int:
    """Fork a process that confines itself and ends with `task(jobs, results)`; returns its id.

    `descriptors` become the process's standard input, standard output, jobs and results. Its standard error leads
    nowhere, and nothing else is open. Its first frame on `results` is READY, or FAILED with the reason.
    """
    child = forked_into_pid_namespace() if how.namespaces else os.fork()
    if child:
        return child
    status = 70
    try:
        _arrange(descriptors)
        try:
            confine(how, cpu_s)
        except BaseException as error:
            write_frame(_RESULTS, FAILED, f"{type(error).__name__}: {error}".encode("utf-8", "replace"))
        else:
            write_frame(_RESULTS, READY)
            status = task(_JOBS, _RESULTS)
    finally:  # nobody may return into the launcher's loop
        os._exit(status)


def _arrange(descriptors: Sequence[int]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    stdin, stdout, jobs, results = (fcntl.fcntl(d, fcntl.F_DUPFD, _OUT_OF_THE_WAY) for d in descriptors)
    null = fcntl.fcntl(null, fcntl.F_DUPFD, _OUT_OF_THE_WAY)
    for target, source in enumerate((stdin, stdout, null, jobs, results)):
        os.dup2(source, target)
    os.closerange(_FIRST_OTHER, os.sysconf("SC_OPEN_MAX"))


def adopt_orphans() -> None:
    """On Linux: daemons that lose their parent become children of this process."""
    if sys.platform == "linux":
        prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _kill(process: int) -> None:
    for send in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            send(process, signal.SIGKILL)


def end_children() -> None:
    """Kill and wait for all children of this process, also those that come while it does so."""
    while children := _children():
        for child in children:
            _kill(child)
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
        with suppress(OSError, IndexError, ValueError), open(f"/proc/{int(entry)}/stat", encoding="latin-1") as file:
            if int(file.read().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(entry))
    return found
