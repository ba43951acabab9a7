"""Namespaces: a root directory of a few read-only system directories, no network, no other process, another user.

Sources: namespaces(7), user_namespaces(7), pivot_root(2), mount(2).
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence

from cohort.sandbox.linux.calls import libc, prctl

NOBODY = 65534  # the user and group that the candidate is, inside and, where we are root, outside too

_NEWNS, _NEWUTS, _NEWIPC = 0x00020000, 0x04000000, 0x08000000
_NEWUSER, _NEWPID, _NEWNET = 0x10000000, 0x20000000, 0x40000000
_TOGETHER = _NEWNS | _NEWUTS | _NEWIPC | _NEWNET

_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT = 1, 2, 4, 8, 32
_NOATIME, _NODIRATIME, _BIND, _REC, _PRIVATE, _RELATIME = 1 << 10, 1 << 11, 1 << 12, 1 << 14, 1 << 18, 1 << 21
_ST_RELATIME = 1 << 12  # as statvfs says it; the other flags have mount's own numbers
_DETACH = 2
_PR_SET_KEEPCAPS = 8

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/random")
_NEW_ROOT = "/proc"  # any directory will do to mount it over; this one holds nothing that goes into the new root


def enter(readable: Sequence[str], directory: str, map_ids: Callable[[], None]) -> dict[str, str]:
    """Take this process out of the machine's namespaces, and its children out of the pid namespace.

    `readable` directories keep their places; `directory` becomes an empty one. `map_ids` asks a process outside, which
    must have root's rights, to call `write_maps` on this one. Returns the features that could not be reached, with the
    reason. Raises OSError with the process left half way: it must end.
    """
    missing: dict[str, str] = {}
    as_root = os.geteuid() == 0 and _unshared_as_root()
    if not as_root:
        user, group = os.geteuid(), os.getegid()
        libc("unshare", _NEWUSER | _TOGETHER)
        write_maps("self", user, group)
    _build_root(readable, directory)
    libc("sethostname", b"sandbox", 7)
    if as_root:
        os.setgroups([])
        try:
            libc("unshare", _NEWUSER)
        except OSError as error:  # the candidate becomes NOBODY by setuid instead
            missing["user"] = str(error)
        else:
            map_ids()
            prctl(_PR_SET_KEEPCAPS, 1)
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    elif user == 0:
        missing["unprivileged"] = "root without the right to become another user"
    libc("unshare", _NEWPID)
    return missing


def _unshared_as_root() -> bool:
    try:
        libc("unshare", _TOGETHER)
    except PermissionError:  # root in a container without CAP_SYS_ADMIN: as any other user, then
        return False
    return True


def write_maps(process: int | str, user: int, group: int) -> None:
    """Make NOBODY inside the new user namespace of `process` be `user` and `group` outside."""
    for name, text in (
        ("setgroups", "deny"), ("uid_map", f"{NOBODY} {user} 1"), ("gid_map", f"{NOBODY} {group} 1"),
    ):  # fmt: skip
        with open(f"/proc/{process}/{name}", "w", encoding="utf-8") as file:
            file.write(text)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    libc("mount", source.encode(), target.encode(), kind and kind.encode(), flags, options.encode())


def _build_root(readable: Sequence[str], directory: str) -> None:
    """An empty file system with `readable`, some devices and `directory` in it becomes this process's root."""
    _mount("none", "/", None, _REC | _PRIVATE)
    _mount("none", _NEW_ROOT, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    for path in readable:
        if os.path.islink(path):
            _make_parent(path)
            os.symlink(os.readlink(path), _NEW_ROOT + path)
        elif os.path.isdir(path):
            os.makedirs(_NEW_ROOT + path, exist_ok=True)
            _bind(path, _RDONLY | _NOSUID | _NODEV)
    for path in DEVICES:
        _make_parent(path)
        with open(_NEW_ROOT + path, "wb"):
            _bind(path, _RDONLY | _NOSUID | _NOEXEC)
    os.makedirs(_NEW_ROOT + directory)
    os.chdir(_NEW_ROOT)
    libc("pivot_root", b".", b".")
    libc("umount2", b".", _DETACH)  # the old root, which lies over the new one
    os.chdir("/")
    for path in readable:  # the interpreter is enough: installed packages are no business of the candidate's
        for packages in glob.glob(path + "/python*/*-packages"):
            _mount("none", packages, "tmpfs", _RDONLY | _NOSUID | _NODEV, "size=4k,mode=755")
    _mount("none", "/", None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)


def _make_parent(path: str) -> None:
    os.makedirs(os.path.dirname(_NEW_ROOT + path), exist_ok=True)


def _bind(path: str, flags: int) -> None:
    """Show `path` in the new root. Flags that its own mount has must stay: a user namespace may not lift them."""
    target = _NEW_ROOT + path
    _mount(path, target, None, _BIND)
    own = os.statvfs(target).f_flag
    kept = own & (_RDONLY | _NOSUID | _NODEV | _NOEXEC | _NOATIME | _NODIRATIME)
    if own & _ST_RELATIME:
        kept |= _RELATIME
    _mount("none", target, None, _REMOUNT | _BIND | flags | kept)


def fresh_directory(path: str, megabytes: int) -> None:
    """Put an empty, limited file system over `path`, seen by this process alone and gone when it ends."""
    libc("unshare", _NEWNS)
    options = f"size={megabytes}m,nr_inodes=4096,mode=700,uid={NOBODY},gid={NOBODY}"
    _mount("none", path, "tmpfs", _NOSUID | _NODEV | _NOEXEC, options)


def forked_into_pid_namespace() -> int:
    """`os.fork()` whose child is the first process of a new pid namespace: when it ends, all of its children do."""
    libc("unshare", _NEWPID)
    child = os.fork()
    if child:
        own = os.pidfd_open(os.getpid())
        try:
            libc("setns", own, _NEWPID)
        finally:
            os.close(own)
    return child
