"""The keeper: the launcher's parent, which stays outside the namespaces and cleans up when the launcher has ended.

    grader -- keeper -- launcher -- one process for each run

All are of one small program that is started with `-I -S` and an empty environment before any candidate exists, and end
with the grader, because its end of the channel closes then.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from cohort.sandbox.confine import Confinement
from cohort.sandbox.contract import Isolation, Limits
from cohort.sandbox.establish import attempt, establish
from cohort.sandbox.launcher import adopt_orphans, end_children, remove_tree, serve
from cohort.sandbox.linux import cgroups, namespaces
from cohort.sandbox.wire import Channel

_OVERHEAD_MB = 128  # the launcher itself, and what the kernel keeps
_PREFIX, _YOUNG_S = "cohort-sandbox-", 10.0  # of the directories' names; what is younger may just be being made
_MAP = b"map\n"
# What is done without, one attempt after the other, until a confined process works.
_ATTEMPTS: tuple[tuple[str, ...], ...] = ((), ("namespaces",), ("unprivileged",), ("landlock", "seccomp"))

Establish = Callable[[Callable[[], None]], tuple[Confinement, Isolation]]


def main(descriptor: int) -> None:
    """`descriptor` is the socket to the grader. Its first message holds the limits and the features to do without."""
    os.environ.clear()  # Python itself sets LC_CTYPE where there is nothing
    channel = Channel(socket.socket(fileno=descriptor))
    settings = channel.receive()
    if settings is None:
        return
    limits = Limits(**settings["limits"])
    missing = dict.fromkeys(settings["without"], "switched off")
    if sys.platform != "linux":
        missing |= dict.fromkeys(("namespaces", "landlock", "seccomp", "cgroup"), f"not on {sys.platform}")
    adopt_orphans()  # a launcher in namespaces is a grandchild
    with ExitStack() as clean_up:
        memory, tasks = (limits.memory_mb + limits.files_mb + _OVERHEAD_MB) << 20, limits.threads + 8
        group = attempt("cgroup", missing, lambda: cgroups.create(f"{cgroups.PREFIX}{os.getpid()}", memory, tasks))
        if group is not None:
            clean_up.callback(group.remove)
        directory, problem = None, ""
        for off in _ATTEMPTS:
            missing = dict.fromkeys(off, problem) | missing
            if "namespaces" in missing and directory is None:
                directory = clean_up.enter_context(_directory())
                os.chmod(directory, 0o711)  # the candidate's own is inside
            problem = _served(channel, functools.partial(establish, limits, missing, directory, group))
            if not problem:
                return
        channel.send(failed=problem)


@contextmanager
def _directory() -> Iterator[str]:
    """A directory that goes with this process. It is locked: one of ours that is not, and whose process is gone, was
    left by a keeper that was killed, and is taken away.
    """
    directory = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")
    with ExitStack() as lock:
        with suppress(OSError):  # where there are no locks, nothing is taken away
            lock.enter_context(_locked(directory))
        for other in Path(directory).parent.glob(f"{_PREFIX}*"):
            with suppress(OSError):  # it is in use, or gone
                status, process = other.stat(), other.name.removeprefix(_PREFIX).partition("-")[0]
                old = time.time() - status.st_mtime > _YOUNG_S and not os.path.exists(f"/proc/{process}")
                if old and status.st_uid == os.getuid():
                    with _locked(str(other)):
                        remove_tree(str(other))
        try:
            yield directory
        finally:
            remove_tree(directory)


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _served(channel: Channel, establish: Establish) -> str:
    """Fork a launcher and wait until it has ended: the reason why it could not serve, nothing if it did."""
    (answers, answering), (asked, asking) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(asked)
        os.close(answering)
        try:
            _be_launcher(channel, establish, asking, answers)
        except BaseException:
            traceback.print_exc()
        finally:  # nobody may return into the keeper
            os._exit(0)
    os.close(asking)
    os.close(answers)
    problem = "the launcher ended at its start"
    with os.fdopen(asked, "rb") as questions, os.fdopen(answering, "wb", buffering=0) as reply:
        for question in questions:  # the launcher holds the other end as long as it lives
            if question == _MAP:
                with reply, suppress(OSError):  # without an answer the launcher gives up
                    namespaces.write_maps(child, namespaces.NOBODY, namespaces.NOBODY)
                    reply.write(b"\n")
            else:
                problem = json.loads(question)
                if not problem:
                    channel.close()  # so that the grader sees when the launcher ends
    end_children()
    return problem


def _be_launcher(channel: Channel, establish: Establish, asking: int, answers: int) -> None:
    def map_ids() -> None:
        os.write(asking, _MAP)
        if not os.read(answers, 1):
            raise OSError("the users could not be mapped")

    try:
        how, isolation = establish(map_ids)
    except OSError as error:
        os.write(asking, json.dumps(str(error)).encode() + b"\n")
        return
    os.write(asking, b'""\n')
    with suppress(BrokenPipeError, ConnectionResetError):  # the grader is gone
        channel.send(isolation=isolation.as_dict())
        serve(channel, how)
