"""The few system calls that Python has no function for. They raise OSError, with the name of the call."""

from __future__ import annotations

import ctypes
import itertools
import os
from contextlib import suppress

_CAPABILITY_VERSION_3 = 0x20080522
_PR_CAPBSET_DROP = 24
_LIBC = ctypes.CDLL(None, use_errno=True)


def libc(name: str, *arguments: object) -> int:
    """Call a function of the C library that returns -1 on failure."""
    return _checked(name, getattr(_LIBC, name)(*arguments))


def syscall(name: str, number: int, *arguments: object) -> int:
    """Make a system call by its number. Integers are passed as 64 bits wide."""
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in (number, *arguments)]
    return _checked(name, _LIBC.syscall(*wide))


def prctl(option: int, *arguments: int) -> int:
    """Ask for or set an attribute of this process."""
    wide = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    return libc("prctl", option, *wide)


def drop_bounding_set() -> None:
    """See to it that no program started from here on, by this process or its children, can have a capability."""
    with suppress(OSError):  # beyond the last one, or without the right to
        for capability in itertools.count():
            prctl(_PR_CAPBSET_DROP, capability)


def drop_capabilities() -> None:
    """Give up every capability of this process."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    libc("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))


def _checked(name: str, result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
