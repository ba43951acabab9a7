"""Seccomp: the system calls that this process may make. Everything that is not listed fails with EPERM.

The filter is classic BPF over `struct seccomp_data`: the number at byte 0, the architecture at 4, six 64-bit arguments
from 16. Numbers are those of include/uapi/asm-generic/unistd.h and arch/x86/entry/syscalls/syscall_64.tbl.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import platform
import struct
from collections.abc import Iterable, Mapping

from cohort.sandbox.linux.calls import prctl

MACHINE = platform.machine()
# AUDIT_ARCH_*, and the column of the tables below.
ARCHITECTURES: Mapping[str, tuple[int, int]] = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

# Allowed whatever the arguments: (x86_64, aarch64), None where the architecture has no such call.
ALLOWED: Mapping[str, tuple[int | None, int | None]] = {
    # data through descriptors that are open
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "lseek": (8, 62), "close": (3, 57), "close_range": (436, 436), "dup": (32, 23),
    "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None), "pipe2": (293, 59), "select": (23, None),
    "pselect6": (270, 72), "poll": (7, None), "ppoll": (271, 73), "fsync": (74, 82), "fdatasync": (75, 83),
    "ftruncate": (77, 46),
    # files: which ones is for Landlock to say
    "stat": (4, None), "lstat": (6, None), "fstat": (5, 80),
    "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None), "faccessat": (269, 48),
    "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78), "getdents64": (217, 61),
    "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "umask": (95, 166), "mkdir": (83, None),
    "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None),
    "renameat": (264, 38), "renameat2": (316, 276),
    # memory
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233),
    "brk": (12, 214), "membarrier": (324, 283),
    # threads of this process, and their end
    "futex": (202, 98), "set_robust_list": (273, 99), "set_tid_address": (218, 96), "rseq": (334, 293),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "exit": (60, 93), "exit_group": (231, 94),
    "arch_prctl": (158, None),
    # signals that it handles itself
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132), "alarm": (37, None), "getitimer": (36, 102),
    "setitimer": (38, 103), "pause": (34, None), "restart_syscall": (219, 128),
    # the time, and facts about itself
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153), "getrusage": (98, 165), "uname": (63, 160),
    "sysinfo": (99, 179), "getrandom": (318, 278), "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173),
    "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "getpgrp": (111, None),
    "getpgid": (121, 155), "getsid": (124, 156), "getresuid": (118, 148), "getresgid": (120, 150),
    "getrlimit": (97, 163), "setrlimit": (160, 164),
}  # fmt: skip

_OPEN, _OPENAT, _TRUNCATE = (2, None), (257, 56), (76, 45)
_CLONE, _CLONE3, _TGKILL = (56, 220), (435, 435), (234, 131)
_IOCTL, _FCNTL, _PRCTL, _PRLIMIT64 = (16, 29), (72, 25), (157, 167), (302, 261)

_O_TRUNC = 0o1000
_CLONE_THREAD = 0x00010000
_CLONE_NEW = 0x7E020000  # any new namespace
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS TIOCGWINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX
_FCNTLS = (0, 1, 2, 3, 4, 1030)  # F_DUPFD F_GETFD F_SETFD F_GETFL F_SETFL F_DUPFD_CLOEXEC: no locks, owners or signals
_PRCTLS = (15, 0x53564D41)  # PR_SET_NAME and PR_SET_VMA, which name threads and memory

_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_ERRNO = 0x00050000
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JSET|K, BPF_RET|K
_INSTRUCTION = struct.Struct("HBBI")  # code, jump if true, jump if false, constant
_PASS = (_RETURN, 0, 0, _ALLOW)
_THREAD = [(_LOAD, 0, 0, 16), (_ANY_BIT, 0, 2, _CLONE_THREAD), (_ANY_BIT, 1, 0, _CLONE_NEW), _PASS]

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def available() -> None:
    """Raise OSError where the kernel has no seccomp filters, or there is no table for the processor."""
    if MACHINE not in ARCHITECTURES:
        raise OSError(f"there is no table of system calls for {MACHINE}")
    try:
        prctl(_PR_SET_SECCOMP, _MODE_FILTER)  # without a filter, which it looks for only where it knows of filters
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise


def install(machine: str, pid: int, may_truncate: bool) -> None:
    """Put the filter over this process. Needs no_new_privs; there is no way back."""
    instructions = program(machine, pid, may_truncate)
    filters = _Program(len(instructions) // _INSTRUCTION.size, instructions)
    prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(filters))


@functools.cache
def program(machine: str, pid: int, may_truncate: bool) -> bytes:
    """The filter as BPF for `machine`, for the process that knows itself as `pid`.

    Before version 3 Landlock lets a process truncate any file of its user's, so `may_truncate` is for processes that
    see no file but their own and read-only ones.

    Another architecture's calls kill the process, and those of x86's x32 mode have numbers that are not in the list. Of
    the arguments only the low half is looked at where the kernel does the same.
    """
    architecture, column = ARCHITECTURES[machine]
    code = [
        (_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0),
    ]  # fmt: skip
    for numbers in ALLOWED.values():
        number = numbers[column]
        if number is not None:
            code += [(_EQUAL, 0, 1, number), _PASS]
    for number, flags in ((_OPEN[column], 1), (_OPENAT[column], 2)):
        if number is not None:
            code += _if_number(number, [_PASS] if may_truncate else _without(flags, _O_TRUNC))
    code += _if_number(_TRUNCATE[column], [_PASS] if may_truncate else [])
    code += _if_number(_IOCTL[column], _one_of(1, _IOCTLS))
    code += _if_number(_FCNTL[column], _one_of(1, _FCNTLS))
    code += _if_number(_PRCTL[column], _one_of(0, _PRCTLS))
    code += _if_number(_PRLIMIT64[column], _one_of(0, (0, pid)))
    code += _if_number(_TGKILL[column], _one_of(0, (pid,)))
    code += _if_number(_CLONE[column], _THREAD)
    # clone3 hides its flags behind a pointer; ENOSYS makes the C library fall back to clone
    code += _if_number(_CLONE3[column], [(_RETURN, 0, 0, _ERRNO | errno.ENOSYS)])
    code += [(_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)


_Code = list[tuple[int, int, int, int]]


def _if_number(number: int, then: _Code) -> _Code:
    """`then` for one system call. It does not come back: what it has not returned is refused."""
    body = [*then, (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    return [(_EQUAL, 0, len(body), number), *body]


def _without(argument: int, bits: int) -> _Code:
    return [(_LOAD, 0, 0, 16 + 8 * argument), (_ANY_BIT, 1, 0, bits), _PASS]


def _one_of(argument: int, values: Iterable[int]) -> _Code:
    code: _Code = [(_LOAD, 0, 0, 16 + 8 * argument)]
    for value in values:
        code += [(_EQUAL, 0, 1, value), _PASS]
    return code
