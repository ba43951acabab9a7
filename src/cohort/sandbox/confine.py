"""What a candidate's process does to itself before it reads the candidate's code. None of it can be undone."""

from __future__ import annotations

import os
import resource
import signal
import sys
from dataclasses import dataclass

from cohort.sandbox.contract import Limits
from cohort.sandbox.linux import landlock, namespaces, seccomp
from cohort.sandbox.linux.calls import drop_capabilities, prctl

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_STACK_MB = 64  # of the main thread: functools.lru_cache recurses in C
_OPEN_FILES = 64


@dataclass(frozen=True, slots=True)
class Confinement:
    """How to confine a process on this machine. `landlock` is the kernel's version of it, 0 for none."""

    limits: Limits
    readable: tuple[str, ...]
    directory: str
    namespaces: bool
    landlock: int
    seccomp: bool
    to_nobody: bool  # become another user by setuid
    tasks: int | None  # threads of its user that there may be, itself included; None where that cannot be known


def readable_directories() -> tuple[str, ...]:
    """What Python needs to import its standard library, no directory inside another."""
    prefixes = {sys.base_prefix, sys.base_exec_prefix}
    candidates = {os.path.join(prefix, lib) for prefix in prefixes for lib in ("lib", sys.platlibdir)}
    candidates |= {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", os.path.dirname(os.__file__)}
    found: list[str] = []
    for path in sorted(path for path in candidates if os.path.exists(path)):
        if not any(path.startswith(above + os.sep) for above in found):
            found.append(path)
    return tuple(found)


def confine(how: Confinement, cpu_s: int) -> None:
    """Confine this process. `cpu_s` is its processor time in seconds. Raises OSError when a step fails."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    if how.namespaces:
        namespaces.fresh_directory(how.directory, how.limits.files_mb)
    os.chdir(how.directory)
    os.umask(0o077)
    _set_limits(how, cpu_s)
    if how.to_nobody:
        os.chown(how.directory, namespaces.NOBODY, namespaces.NOBODY)
        os.setgroups([])
        os.setresgid(namespaces.NOBODY, namespaces.NOBODY, namespaces.NOBODY)
        os.setresuid(namespaces.NOBODY, namespaces.NOBODY, namespaces.NOBODY)
    if sys.platform != "linux":
        return
    drop_capabilities()
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which clears it
    prctl(_PR_SET_DUMPABLE, 0)
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if how.landlock:
        readable = (*how.readable, *namespaces.DEVICES, how.directory)
        writable = (how.directory,) if how.namespaces else ()  # a disk without a quota is not for strangers to fill
        landlock.restrict(how.landlock, readable, writable)
    if how.seccomp:
        seccomp.install(seccomp.MACHINE, os.getpid(), may_truncate(how))


def may_truncate(how: Confinement) -> bool:
    """Whether the process may make a file empty: no other than its own is in its place, or none is protected."""
    return how.namespaces or not how.landlock


def _set_limits(how: Confinement, cpu_s: int) -> None:
    mb = 1 << 20
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_CPU": cpu_s,
        "RLIMIT_FSIZE": how.limits.files_mb * mb,
        "RLIMIT_NOFILE": _OPEN_FILES,
        "RLIMIT_STACK": _STACK_MB * mb,
        "RLIMIT_AS": how.limits.memory_mb * mb,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
    }
    if how.tasks is not None:
        limits["RLIMIT_NPROC"] = how.tasks
    for name, value in limits.items():
        number = getattr(resource, name, None)
        if number is None:  # this system has no such limit
            continue
        hard = resource.getrlimit(number)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(number, (most, most))
        except ValueError:  # macOS refuses some; the level that it reaches promises none of them
            if sys.platform == "linux":
                raise
