"""The filter, instruction by instruction, on both architectures; no kernel is needed for that."""

import errno
import struct

import pytest

from cohort.sandbox.linux.seccomp import ALLOWED, ARCHITECTURES, program

ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
PID = 4711
NUMBERS = {  # (x86_64, aarch64), of calls that the tests below name
    "clone": (56, 220), "clone3": (435, 435), "tgkill": (234, 131), "ioctl": (16, 29), "fcntl": (72, 25),
    "prctl": (157, 167), "prlimit64": (302, 261), "kill": (62, 129), "socket": (41, 198), "execve": (59, 221),
    "ptrace": (101, 117), "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "bpf": (321, 280),
    "process_vm_readv": (310, 270), "io_uring_setup": (425, 425), "memfd_create": (319, 279), "shmget": (29, 194),
    "seccomp": (317, 277), "setuid": (105, 146), "chmod": (90, None), "symlinkat": (266, 36), "fork": (57, None),
    "vfork": (58, None), "open_by_handle_at": (304, 265), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "sendmsg": (46, 211), "execveat": (322, 281),
    "chroot": (161, 51), "init_module": (175, 105), "perf_event_open": (298, 241), "socketpair": (53, 199),
    "open": (2, None), "openat": (257, 56), "truncate": (76, 45), "creat": (85, None), "openat2": (437, 437),
    "kcmp": (312, 272), "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "io_uring_enter": (426, 426),
    "memfd_secret": (447, 447), "timer_create": (222, 107), "rt_tgsigqueueinfo": (297, 240), "fchmodat": (268, 53),
    "utimensat": (280, 88), "setxattr": (188, 5), "fallocate": (285, 47), "sched_setaffinity": (203, 122),
}  # fmt: skip
SPECIAL = {"clone", "clone3", "tgkill", "ioctl", "fcntl", "prctl", "prlimit64", "open", "openat", "truncate"}
O_TRUNC = 0o1000


def run(machine, number, *arguments, architecture=None, may_truncate=True):
    """Interpret the classic BPF program as the kernel does (struct seccomp_data, little endian)."""
    audit, _ = ARCHITECTURES[machine]
    padded = [*arguments, *[0] * 6][:6]
    data = struct.pack("<IIQ6Q", number, architecture or audit, 0, *(a & 2**64 - 1 for a in padded))
    code = program(machine, PID, may_truncate)
    instructions = [struct.unpack_from("=HBBI", code, at) for at in range(0, len(code), 8)]
    assert len(instructions) < 4096  # BPF_MAXINSNS
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, constant = instructions[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, constant)
        elif operation == 0x15:
            at += if_true if accumulator == constant else if_false
        elif operation == 0x45:
            at += if_true if accumulator & constant else if_false
        else:
            assert operation == 0x06
            return constant


@pytest.fixture(params=list(ARCHITECTURES))
def machine(request):
    return request.param


def call(machine, name, *arguments, **options):
    number = NUMBERS[name][ARCHITECTURES[machine][1]]
    if number is None:
        pytest.skip(f"{machine} has no {name}")
    return run(machine, number, *arguments, **options)


def test_what_is_listed_is_allowed_and_nothing_else(machine):
    column = ARCHITECTURES[machine][1]
    listed = {numbers[column] for numbers in ALLOWED.values()} - {None}
    special = {NUMBERS[name][column] for name in SPECIAL}
    opening = {NUMBERS[name][column] for name in ("open", "openat", "truncate")} - {None}
    assert not listed & special
    for number in range(600):
        result = run(machine, number, 12345, 12345)
        if number in listed | opening:
            assert result == ALLOW, number
        else:
            assert result in (REFUSE, 0x00050000 | errno.ENOSYS), number
    assert run(machine, 2**31) == REFUSE


@pytest.mark.parametrize("name", sorted(set(NUMBERS) - SPECIAL))
def test_dangerous_calls_are_refused(machine, name):
    assert call(machine, name) == REFUSE


def test_another_architecture_kills(machine):
    other = next(audit for name, (audit, _) in ARCHITECTURES.items() if name != machine)
    assert run(machine, 0, architecture=other) == KILL
    assert run(machine, 0, architecture=0x40000003) == KILL  # i386, by int 0x80


def test_x32_numbers_are_refused():
    for number in (0, 1, 59, 520):
        assert run("x86_64", number | 0x40000000) == REFUSE


def test_threads_may_be_made_and_processes_not(machine):
    thread = 0x10000 | 0x100 | 0x800
    assert call(machine, "clone", thread) == ALLOW
    for flags in (17, 0, 0x00004000 | 17, 0x10000000 | 17):  # fork, vfork, a user namespace
        assert call(machine, "clone", flags) == REFUSE
    for namespace in (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert call(machine, "clone", thread | namespace) == REFUSE
    assert call(machine, "clone3") == 0x00050000 | errno.ENOSYS  # the C library then uses clone


def test_signals_reach_only_itself(machine):
    assert call(machine, "tgkill", PID, PID, 6) == ALLOW
    assert call(machine, "tgkill", PID + 1, PID + 1, 9) == REFUSE
    assert call(machine, "tgkill", -1, 1, 9) == REFUSE


@pytest.mark.parametrize(("name", "before"), [("open", ()), ("openat", (-100,))])
def test_opening_may_make_a_file_empty_only_where_that_does_no_harm(machine, name, before):
    for flags in (0, 1, 2, 0o100, 0o2000000):  # O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_CLOEXEC
        for may_truncate in (True, False):
            assert call(machine, name, *before, 7777, flags, may_truncate=may_truncate) == ALLOW
        assert call(machine, name, *before, 7777, flags | O_TRUNC) == ALLOW
        assert call(machine, name, *before, 7777, flags | O_TRUNC, may_truncate=False) == REFUSE
    assert call(machine, "truncate", 7777, 0) == ALLOW
    assert call(machine, "truncate", 7777, 0, may_truncate=False) == REFUSE


def test_arguments_that_matter_are_looked_at(machine):
    assert call(machine, "prlimit64", 0, 7) == ALLOW
    assert call(machine, "prlimit64", PID, 7) == ALLOW
    assert call(machine, "prlimit64", 1, 7) == REFUSE
    assert call(machine, "ioctl", 0, 0x5401) == ALLOW  # TCGETS: isatty
    assert call(machine, "ioctl", 0, 0x5412) == REFUSE  # TIOCSTI: type into the terminal
    assert call(machine, "fcntl", 0, 3) == ALLOW
    assert call(machine, "fcntl", 0, 8) == REFUSE  # F_SETOWN
    assert call(machine, "prctl", 15) == ALLOW
    for option in (1, 4, 22, 38):  # parent's death signal, dumpable, seccomp, no_new_privs
        assert call(machine, "prctl", option) == REFUSE


def test_a_machine_without_a_table_has_no_filter():
    with pytest.raises(KeyError):
        program("riscv64", PID, True)
