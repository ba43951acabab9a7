"""Landlock: this process, and every one that it starts, can open only what is listed.

Sources: the kernel's Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

from cohort.sandbox.linux.calls import syscall

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on every architecture
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG = 1 << 7, 1 << 8
_TRUNCATE = 1 << 14
_FIRST_RIGHTS = 13  # number of file rights in version 1: bits 0 to 12
_RIGHTS_ADDED = {2: 13, 3: 14, 5: 15}  # REFER, TRUNCATE, IOCTL_DEV
_NETWORK = 0b11  # TCP bind and connect, since version 4
_SCOPES = 0b11  # abstract sockets and signals, since version 6
_NO_LOG = 1  # LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF, since version 7: candidates may not fill the system's log

READ = _READ_FILE | _READ_DIR
WRITE = READ | _WRITE_FILE | _TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG
_ON_FILES = _WRITE_FILE | _READ_FILE | _TRUNCATE


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def abi() -> int:
    """The version that this kernel speaks, from 1. Raises OSError where there is none."""
    return syscall("landlock_create_ruleset", _CREATE_RULESET, None, 0, _VERSION)


def restrict(version: int, readable: Iterable[str], writable: Iterable[str]) -> None:
    """Refuse this process everything but reading beneath `readable` and reading and writing beneath `writable`.

    Nothing can be executed, and where the kernel is new enough no TCP port is bound or reached and no signal leaves.
    Needs no_new_privs. Paths that do not exist are left out.
    """
    files = (1 << _FIRST_RIGHTS) - 1
    for since, bit in _RIGHTS_ADDED.items():
        files |= (1 << bit) if version >= since else 0
    rules = _Ruleset(files, _NETWORK if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = syscall("landlock_create_ruleset", _CREATE_RULESET, ctypes.byref(rules), size, 0)
    try:
        for rights, paths in ((READ, readable), (WRITE, writable)):
            for path in paths:
                _allow(ruleset, path, rights & files)
        syscall("landlock_restrict_self", _RESTRICT_SELF, ruleset, _NO_LOG if version >= 7 else 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        rule = _PathBeneath(rights if os.path.isdir(path) else rights & _ON_FILES, opened)
        syscall("landlock_add_rule", _ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(opened)
