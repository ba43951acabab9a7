"""Ways out of the sandbox, each tried on every level at which strangers' code is run by default.

A program says "through" for every door that it finds open. None may, the launcher serves on as before, and nothing
stays on the machine. Others stand in `test_isolation.py` and `hostile_code.py`: these are of other kinds.
"""

from __future__ import annotations

import os
import platform
import socket
import textwrap

import pytest
from launchers import SMALL, launcher_processes

from cohort.sandbox import Sandbox
from leaks import left_behind, nothing_more_than

PRELUDE = """
import ctypes, errno, os, sys
c = ctypes.CDLL(None, use_errno=True)

def door(name, action, *arguments):
    try:
        result = action(*arguments)
    except (OSError, AttributeError, ValueError, ImportError):
        return
    if not (isinstance(result, int) and result < 0):
        print("through:", name, flush=True)

def openable(*paths, flags=os.O_RDONLY):
    for path in paths:
        door(path, lambda: os.read(os.open(path, flags), 1) if flags == os.O_RDONLY else os.open(path, flags))
"""
ATTACKS = {
    "memory of itself and of its parents by /proc": """
        openable(*(f"/proc/{one}/{file}" for one in ("self", 1, os.getppid(), "thread-self", "self/task/1")
                   for file in ("mem", "environ", "maps", "cmdline", "auxv", "root/etc/passwd", "cwd/.")))
        openable("/proc/self/mem", flags=os.O_RDWR)
        openable("/proc/self/oom_score_adj", "/proc/sys/kernel/core_pattern", "/sys/kernel/uevent_helper",
                 flags=os.O_WRONLY)
    """,
    "memory of its parent by ptrace and vectors": """
        class Vector(ctypes.Structure):
            _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
        room = ctypes.create_string_buffer(8)
        for pid in (1, os.getppid(), os.getpid()):
            for request in (16, 0x4206, 0x4200):  # attach, seize, set options
                door(f"ptrace {pid}", c.ptrace, request, pid, None, None)
            mine, theirs = Vector(ctypes.addressof(room), 8), Vector(ctypes.addressof(room), 8)
            for call in (c.process_vm_readv, c.process_vm_writev):
                door(f"vectors {pid}", call, pid, ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0)
    """,
    "descriptors sent over a socket": """
        import array, socket
        def send():
            ours, theirs = socket.socketpair()
            ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
        door("pair", send)
        for descriptor in range(8):  # one of those that it has might be a socket
            door("received", lambda: socket.socket(fileno=descriptor).recvmsg(1, 100))
            door("getsockopt", c.getsockopt, descriptor, 1, 3, ctypes.byref(ctypes.c_int()), None)
    """,
    "a socket of the machine by its abstract name": """
        import socket
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
            door("abstract", lambda: socket.socket(socket.AF_UNIX, kind).connect("\\0cohort-attack"))
            door("bound", lambda: socket.socket(socket.AF_UNIX, kind).bind("\\0cohort-taken"))
    """,
    "sockets of rare families": """
        import socket
        for family in (1, 2, 10, 15, 16, 17, 29, 31, 38, 40, 44):  # unix, inet, netlink, packet, alg, vsock ...
            for kind in (1, 2, 3, 5):
                door(f"family {family}", socket.socket, family, kind)
    """,
    "watches on files of everybody": """
        watch = c.inotify_init1(0)
        door("inotify", lambda: watch)
        for _ in range(1000):
            door("a watch", c.inotify_add_watch, watch, os.path.dirname(os.__file__).encode(), 0xFFF)
        door("fanotify", c.fanotify_init, 0, 0)
        door("dnotify", lambda: __import__("fcntl").fcntl(os.open(os.path.dirname(os.__file__), 0), 1026, 0x1F))
    """,
    "shared memory that stays": """
        door("segment", c.shmget, 0x434F48, 4096, 0o1666)
        door("semaphores", c.semget, 0x434F48, 1, 0o1666)
        door("queue", c.msgget, 0x434F48, 0o1666)
        door("posix memory", c.shm_open, b"/cohort-attack", 0o102, 0o666)
        door("posix semaphore", lambda: -1 if not c.sem_open(b"/cohort-attack", 0o100, 0o666, 1) else 0)
        door("posix queue", c.mq_open, b"/cohort-attack", 0o102, 0o666, None)
        openable("/dev/shm/cohort-attack", "/dev/mqueue/cohort-attack", flags=os.O_CREAT | os.O_RDWR)
    """,
    "a file of memory that is executed": """
        file = c.memfd_create(b"x", 0)
        door("memory", lambda: file)
        door("secret memory", c.syscall, 447, 0)
        for target in (os.__file__, sys.executable, "/bin/true", "/lib64/ld-linux-x86-64.so.2"):
            door("fexecve", c.execveat, -100, target.encode(), (ctypes.c_char_p * 1)(), (ctypes.c_char_p * 1)(), 0)
    """,
    "rings, faults and programs for the kernel": """
        room = ctypes.create_string_buffer(256)
        for number in (425, 426, 427, 323, 321, 298, 317, 444, 445, 446):
            for first in (0, 1, 5, 16):
                door(f"call {number}", c.syscall, number, first, ctypes.byref(room), 128, 0, 0)
    """,
    "keys of the user": """
        for number, arguments in {248: (b"user", b"cohort-attack", b"x", 1, -4), 249: (b"user", b"x", None, -4),
                                  250: (0, -4, 1)}.items():
            door("key", c.syscall, number, *arguments)
    """,
    "another root": """
        for action, *arguments in ((c.unshare, 0x10000000), (c.unshare, 0x00020000), (c.setns, 0, 0), (c.chroot, b"."),
            (c.mount, b"none", b".", b"tmpfs", 0, None), (c.umount2, b".", 2), (c.syscall, 155, b".", b"."),
            (c.syscall, 428, -100, b".", 1), (c.syscall, 430, b"tmpfs", 0), (c.syscall, 432, -1, b"", 0, 0),
            (c.swapon, b"x", 0), (c.acct, None), (c.sethostname, b"x", 1)):
            door(str(arguments), action, *arguments)
    """,
    "up from a directory that it holds": """
        import errno
        here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        for up in ("..", "../..", "../" * 20, "../" * 20 + "etc"):
            def listed(path=up):
                found = os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
                return len([one for one in os.listdir(found) if one in ("root", "home", "passwd", "etc")]) or -1
            door(up, listed)
            door(up, lambda: os.open(up + "/etc/passwd", os.O_RDONLY, dir_fd=here))
        door("openat2", c.syscall, 437, here, b"../../etc/passwd", ctypes.create_string_buffer(24), 24)
        door("handle", c.name_to_handle_at, here, b".", ctypes.create_string_buffer(200),
             ctypes.byref(ctypes.c_int()), 0)
        door("by handle", c.open_by_handle_at, here, ctypes.create_string_buffer(200), 0)
        os.chdir("..")
        openable("etc/passwd", "../etc/passwd", "../../etc/passwd")
    """,
    "what is typed into a terminal": """
        import fcntl
        openable("/dev/tty", "/dev/ptmx", "/dev/pts/0", "/dev/console", "/dev/tty1", flags=os.O_RDWR)
        for descriptor in range(5):
            for request in (0x5412, 0x540E, 0x541C, 0x4B49):  # TIOCSTI TIOCSCTTY TIOCLINUX KDSKBSENT
                door(f"ioctl {request:x}", lambda: fcntl.ioctl(descriptor, request, b"x"))
    """,
    "devices": """
        openable("/dev/mem", "/dev/kmem", "/dev/kmsg", "/dev/port", "/dev/fuse", "/dev/kvm", "/dev/loop-control",
                 "/dev/sda", "/dev/vhost-net", "/dev/net/tun", "/dev/nvidia0", "/dev/userfaultfd")
        import fcntl
        random = os.open("/dev/urandom", os.O_RDONLY)
        door("entropy", lambda: fcntl.ioctl(random, 0x40085203, bytes(8)))
        door("device", os.mknod, "null", 0o20666, os.makedev(1, 3))
        door("disk", os.mknod, "disk", 0o60666, os.makedev(8, 0))
    """,
    "a fifo, a link or a socket as its output": """
        import socket
        door("fifo", os.mkfifo, "fifo")
        door("symlink", os.symlink, "/etc/passwd", "link")
        door("hard link", os.link, os.__file__, "link")
        door("socket", lambda: socket.socket(socket.AF_UNIX).bind("socket"))
        door("exchange", c.renameat2, -100, os.__file__.encode(), -100, b"x", 2)
        door("whiteout", c.renameat2, -100, b"a", -100, b"b", 4)
    """,
    "a file that is larger than all": """
        def sparse():
            with open("sparse", "wb") as file:
                os.ftruncate(file.fileno(), 1 << 40)
        def beyond():
            with open("beyond", "wb", buffering=0) as file:
                file.seek(1 << 40)
                file.write(b"x")
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        door("sparse", sparse)
        door("beyond", beyond)
        door("reserved", lambda: os.posix_fallocate(os.open("f", os.O_CREAT | os.O_RDWR), 0, 1 << 40))
    """,
    "names that no tool expects": """
        for name in (b"line\\nbreak", b"\\x1b[2J\\x1b]0;title\\x07", b"\\xff", b"-rf", b"a" * 255, b"\\xe2\\x80\\xae"):
            for make in (lambda: os.close(os.open(name, os.O_CREAT | os.O_WRONLY)), lambda: os.mkdir(name + b"d")):
                try: make()
                except OSError: continue
    """,
    "directories without end": """
        made = 0
        try:
            while made < 20_000:
                os.mkdir("d"); os.chdir("d"); made += 1
            print("through: inodes")
        except OSError:
            pass
    """,
    "locks on what others use": """
        import fcntl
        file = os.open(os.__file__, os.O_RDONLY)
        for lock in (fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_EX | fcntl.LOCK_NB):
            door("flock", fcntl.flock, file, lock)
            door("lockf", fcntl.lockf, file, fcntl.LOCK_SH)
        door("lease", fcntl.fcntl, file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    """,
    "code that the next program imports": """
        import importlib.util, py_compile
        cached = importlib.util.cache_from_source(os.__file__)
        library = os.path.dirname(os.__file__)
        openable(cached, os.__file__, flags=os.O_WRONLY)
        openable(library + "/sitecustomize.py", library + "/x.pth", os.path.dirname(cached) + "/x.pyc",
                 flags=os.O_CREAT | os.O_WRONLY)
        for change in (lambda: os.remove(cached), lambda: os.utime(cached), lambda: os.chmod(cached, 0o666),
                       lambda: os.setxattr(cached, "user.x", b"x"), lambda: os.rename(cached, cached + "x")):
            door("change", change)
    """,
    "signals that the kernel sends": """
        import fcntl, signal
        for pid in (os.getppid(), 1, -os.getppid()):
            door("owner", fcntl.fcntl, 0, fcntl.F_SETOWN, pid)
            door("signal", fcntl.fcntl, 0, 10, signal.SIGSTOP)
            door("group", c.setpgid, 0, pid)
            door("foreground", os.tcsetpgrp, 0, abs(pid))
            for number in (62, 129, 297, 424):
                if pid != os.getpid(): door("stop", c.syscall, number, pid, signal.SIGSTOP, 0, 0)
        timer = ctypes.c_void_p()
        door("timer", c.timer_create, 1, None, ctypes.byref(timer))
    """,
    "what it is, changed": """
        for option in (3, 4, 1, 36, 8, 22, 23, 24, 28, 35, 38, 39, 47, 0x59616D61):  # all but the two that name
            for value in (0, 1, 9):
                if option not in (3, 23, 39): door(f"prctl {option}", c.prctl, option, value, 0, 0, 0)
        for change in (c.setuid, c.setgid, c.setfsuid, c.seteuid):
            if change is not c.setfsuid: door("user", change, 0)
        door("personality", c.personality, 0x0040000)
        door("capabilities", c.capset, ctypes.create_string_buffer(8), ctypes.create_string_buffer(24))
        door("groups", c.setgroups, 0, None)
    """,
    "more than its limits, and those of its parent": """
        import resource
        names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
        for name in names:
            number = getattr(resource, name)
            hard = resource.getrlimit(number)[1]
            if hard != resource.RLIM_INFINITY:
                door(name, resource.setrlimit, number, (hard + 1, hard + 1))
            for pid in (os.getppid(), 1):
                if pid not in (0, os.getpid()): door("parent", resource.prlimit, pid, number)
        for change in (lambda: os.nice(-5), lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
                       lambda: os.sched_setaffinity(0, range(512)), lambda: c.mlockall(3)):
            door("priority", change)
    """,
    "the time of the machine": """
        import time
        door("set", time.clock_settime, time.CLOCK_REALTIME, 1.0)
        room = ctypes.create_string_buffer(256)
        for call in (c.settimeofday, c.clock_settime):
            door("set", call, ctypes.byref(room), ctypes.byref(room))
        door("adjusted", lambda: c.clock_adjtime(0, room) if room.__setitem__(0, b"\\x01") is None else -1)
    """,
    "a process that outlives it": """
        def child(make):
            pid = make()
            if pid == 0:
                import time
                while True: time.sleep(100)
            return pid
        for make in (os.fork, lambda: c.syscall(57), lambda: c.syscall(58),
                     lambda: c.syscall(56, 0x8011, 0, 0, 0, 0),  # a child of its parent
                     lambda: c.syscall(435, ctypes.create_string_buffer(88), 88),
                     lambda: os.posix_spawn(sys.executable, ["python", "-c", "while True: pass"], {})):
            door("child", child, make)
    """,
    "pipes of its own size and mood": """
        import fcntl
        for descriptor in (0, 1, 3, 4):
            door("size", fcntl.fcntl, descriptor, 1031, 1 << 20)
            door("splice", c.splice, descriptor, None, 4, None, 10, 0)
            door("tee", c.tee, descriptor, 4, 10, 0)
            door("sendfile", c.sendfile, 4, 0, None, 10)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND)  # of its own ends
    """,
}  # fmt: skip


def ours():
    """What can be told from what others on this machine leave."""
    return {kind: found for kind, found in left_behind().items() if kind not in ("shared memory", "mounts")}


@pytest.fixture(scope="module", params=[(), ("namespaces",)], ids=["all", "without namespaces"])
def walls(request, level):
    """A sandbox for all attacks: what one of them does to it, the next ones see."""
    if level == "process" or (level == "filtered" and not request.param):
        pytest.skip(f"this machine reaches '{level}'")
    with Sandbox(SMALL, without=request.param) as sandbox:
        sandbox.run("", "", 5)
        yield sandbox, ours(), [process.pid for process in launcher_processes(sandbox)]


@pytest.mark.fault("attacks of every kind from inside of the sandbox", "none finds a door, and nothing stays")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="some calls are made by the numbers of x86-64")
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_finds_no_door_open(walls, attack):
    sandbox, before, processes = walls
    name = f"cohort-attack-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as host:
        host.bind(f"\0{name}")
        host.listen()
        run = sandbox.run(PRELUDE + textwrap.dedent(ATTACKS[attack].replace("cohort-attack", name)), "", 5)
    assert (run.status, run.output, run.message) == ("ok", b"", ""), run
    again = sandbox.run("import os\nprint(os.listdir('.'), input())", "here", 5)
    assert (again.status, again.output) == ("ok", b"[] here\n")
    assert [process.pid for process in launcher_processes(sandbox)] == processes
    nothing_more_than(before, look=ours)
    assert not os.path.exists(f"/dev/shm/{name}")


@pytest.mark.parametrize(
    "attack",
    ["descriptors sent over a socket", "watches on files of everybody", "a file of memory that is executed",
     "locks on what others use", "a fifo, a link or a socket as its output"],
)  # fmt: skip
def test_an_attack_says_so_where_the_door_is_open(attack):
    """Without any wall, which only a recipe that asks for it gets: these tests can fail."""
    with Sandbox(SMALL, minimum="process", without=("namespaces", "landlock", "seccomp")) as sandbox:
        assert b"through" in sandbox.run(PRELUDE + textwrap.dedent(ATTACKS[attack]), "", 5).output


WRITES = {  # to the pipe of results, by a program that leaves it so
    "half a header": "os.write(4, b'V\\0')",
    "a header without its end": "os.write(4, b'V\\0\\0\\1\\0abc')",
    "that it is ready, again": "os.write(4, b'R\\0\\0\\0\\0')",
    "a kind that is none": "os.write(4, b'\\xff\\0\\0\\0\\0')",
    "out of memory": "os.write(4, b'M\\0\\0\\0\\0')",
    "no line's end": "[os.write(1, b'42') for _ in range(1000)]",
    "a line's end that erases": "os.write(1, b'0\\r42\\x1b[1A\\x1b[2K42')",
}


@pytest.mark.fault("results that a candidate forges", "they are no results")
@pytest.mark.parametrize("written", WRITES)
def test_what_it_writes_where_results_go_is_no_result(walls, written):
    """Neither of a program, whose output is compared, nor of a function, whose value is."""
    from cohort.rewards.verifiers.code.grade import Rules, grade
    from cohort.rewards.verifiers.code.tests import read_tests

    sandbox, *_ = walls
    rules = Rules(2.0, 4.0, 1e-6, every=True)
    program = f"import os\n{WRITES[written]}"
    found = grade(program, read_tests({"inputs": [""], "outputs": ["42"]}), sandbox, rules)
    assert found.verdict != "right", found
    function = f"import os\ndef f():\n    {WRITES[written]}\n    os._exit(0)"
    found = grade(function, read_tests({"fn_name": "f", "inputs": [[]], "outputs": [42]}), sandbox, rules)
    assert found.verdict != "right", found
    assert sandbox.run("print(1)", "", 5).output == b"1\n"
