"""What the sandbox reaches, says, and refuses; how it fails; and that nothing of it stays."""

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
from launchers import SMALL, launcher_processes, wait_until_gone

from cohort.sandbox import Isolation, Limits, Sandbox, SandboxError, local, session
from cohort.sandbox.contract import LEVELS, require
from cohort.types import InfrastructureError, UserError

pytestmark = pytest.mark.usefixtures("no_leaks")
EVERYTHING = ("namespaces", "unprivileged", "landlock", "seccomp", "cgroup")


# --- levels -----------------------------------------------------------------------------------------------------------


def test_the_level_is_the_highest_whose_features_are_all_there():
    filtered = ["landlock", "seccomp"]
    isolated = [*filtered, "mount", "pid", "network", "unprivileged"]
    assert Isolation.of([], {}).level == "process"
    assert Isolation.of(["landlock"], {}).level == "process"
    assert Isolation.of(filtered, {}).level == "filtered"
    assert Isolation.of(isolated, {}).level == "isolated"
    for feature in isolated:
        assert Isolation.of([f for f in isolated if f != feature], {}).level != "isolated"
    record = Isolation.of(filtered, {"mount": "why"}).as_dict()
    assert json.loads(json.dumps(record)) == {
        "level": "filtered",
        "reached": ["landlock", "seccomp"],
        "missing": {"mount": "why"},
    }


def test_less_than_wanted_is_refused_with_the_reason_and_the_way_out():
    isolation = Isolation.of(["seccomp"], {"landlock": "Function not implemented"})
    with pytest.raises(UserError, match=r"landlock: Function not implemented.*isolation = \"process\""):
        require(isolation, "filtered")
    require(isolation, "process")
    for level in ("process", "filtered", "isolated"):
        require(Isolation("remote"), level)
    assert list(LEVELS) == ["process", "filtered", "isolated", "remote"]


def test_this_machine_says_what_it_reaches():
    with Sandbox(SMALL, minimum="process") as sandbox:
        isolation = sandbox.isolation
    assert not set(isolation.reached) & set(isolation.missing)
    known = {"landlock", "seccomp", "mount", "pid", "network", "user", "unprivileged", "cgroup"}
    assert set(isolation.reached) | set(isolation.missing) == known
    assert all(isolation.missing.values())


def test_features_that_are_switched_off_are_missing(level):
    if level == "process":
        pytest.skip("nothing to switch off here")
    with Sandbox(SMALL, without=("namespaces",)) as sandbox:
        assert sandbox.isolation.level == "filtered"
        assert sandbox.isolation.missing["mount"] == "switched off"
        assert sandbox.run("print(1)", "", 5).output == b"1\n"
    for feature in ("landlock", "seccomp"):
        sandbox = Sandbox(SMALL, without=(feature,))
        with pytest.raises(UserError, match=f"{feature}: switched off"):
            sandbox.run("print(1)", "", 5)


# --- other machines, simulated ----------------------------------------------------------------------------------------

OLD_KERNEL = """
from cohort.sandbox.linux import landlock
def none(): raise OSError(38, "landlock_create_ruleset: Function not implemented")
landlock.abi = none
"""
NO_NAMESPACES = """
from cohort.sandbox.linux import namespaces
def refused(*_): raise PermissionError(1, "unshare: Operation not permitted")
namespaces.enter = refused
"""
NO_USER_NAMESPACE = """
from cohort.sandbox.linux import namespaces
real = namespaces.libc
def libc(name, *arguments):
    if name == "unshare" and arguments[0] == 0x10000000: raise PermissionError(1, "unshare: not for users")
    return real(name, *arguments)
namespaces.libc = libc
"""
BROKEN_FILTER = """
from cohort.sandbox.linux import seccomp
seccomp.install = lambda machine, pid, may_truncate: None
"""
ANOTHER_PROCESSOR = """
from cohort.sandbox.linux import seccomp
seccomp.MACHINE = "riscv64"
"""
MACOS = """
import os, resource, sys
sys.platform = "darwin"
del os.pidfd_open, os.sched_getaffinity, resource.RLIMIT_MSGQUEUE, resource.RLIMIT_NPROC
"""
LOST_PRIVILEGES = """
from cohort.sandbox import confine
def fails(how, cpu_s): raise OSError(1, "everything is forbidden here")
confine.confine = fails
from cohort.sandbox import launcher
launcher.confine = fails
"""


def test_an_old_kernel_is_refused_unless_accepted(launcher_with):
    launcher_with(OLD_KERNEL)
    with pytest.raises(UserError, match=r"landlock: .*Function not implemented"), Sandbox(SMALL) as sandbox:
        sandbox.run("print(1)", "", 5)
    with Sandbox(SMALL, minimum="process") as sandbox:
        assert sandbox.isolation.level == "process"
        assert sandbox.run("print(1)", "", 5).output == b"1\n"


def test_a_container_without_namespaces_is_filtered(launcher_with, level):
    launcher_with(NO_NAMESPACES)
    with Sandbox(SMALL, minimum="process") as sandbox:
        assert sandbox.isolation.level == ("process" if level == "process" else "filtered")
        assert "Operation not permitted" in sandbox.isolation.missing["pid"]
        assert sandbox.run("print(1)", "", 5).output == b"1\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can do without a user namespace")
def test_root_without_user_namespaces_becomes_nobody_by_itself(launcher_with, level):
    if level != "isolated":
        pytest.skip(f"this machine reaches '{level}'")
    launcher_with(NO_USER_NAMESPACE)
    with Sandbox(SMALL) as sandbox:
        assert sandbox.isolation.level == "isolated"
        assert sandbox.isolation.missing["user"] == "[Errno 1] unshare: not for users"
        run = sandbox.run("import os\nopen('f', 'w').write('x')\nprint(os.getuid(), os.getgid(), os.getpid())", "", 5)
        assert run.output == b"65534 65534 1\n"


def test_a_filter_that_does_not_hold_does_not_count(launcher_with, level):
    launcher_with(BROKEN_FILTER)
    with Sandbox(SMALL, minimum="process") as sandbox:
        assert sandbox.isolation.level == "process"
        if level != "process":
            assert "does not hold" in sandbox.isolation.missing["seccomp"]


def test_an_unknown_processor_has_no_filter(launcher_with):
    launcher_with(ANOTHER_PROCESSOR)
    with Sandbox(SMALL, minimum="process") as sandbox:
        assert sandbox.isolation.level == "process"
        assert "riscv64" in sandbox.isolation.missing["seccomp"]


def test_macos_has_the_process_level_and_says_why(launcher_with):
    launcher_with(MACOS)
    with pytest.raises(UserError, match="darwin"), Sandbox(SMALL) as sandbox:
        sandbox.run("print(1)", "", 5)
    with Sandbox(SMALL, minimum="process") as sandbox:
        assert sandbox.isolation.level == "process"
        assert sandbox.isolation.missing["landlock"] == "not on darwin"
        assert sandbox.run("print(input())", "7", 5).output == b"7\n"
        assert sandbox.run("while True: pass", "", 0.1).status == "timeout"
        assert sandbox.run("import os\nos._exit(3)", "", 5).status == "error"
        runs = sandbox.call("def f(x): return x", "f", [[1], [2]], 5, 5, lambda run: True)
        assert [run.value for run in runs] == [1, 2]


def test_where_nothing_works_it_is_an_error_of_the_sandbox(launcher_with):
    launcher_with(LOST_PRIVILEGES)
    with pytest.raises(SandboxError, match="everything is forbidden here"), Sandbox(minimum="process") as sandbox:
        sandbox.run("print(1)", "", 5)


# --- the process level ------------------------------------------------------------------------------------------------


def test_without_any_filter_daemons_are_still_ended_and_files_removed(tmp_path):
    marker = tmp_path / "marker"
    code = f"""
        import os, time
        os.makedirs('a/' * 50)
        open('file', 'w').write('x')
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True:
                    open({str(marker)!r}, 'a').write('x')
                    time.sleep(0.01)
            os._exit(0)
        time.sleep(0.1)
        print(1)
    """
    os.chmod(tmp_path, 0o777)
    with Sandbox(SMALL, minimum="process", without=EVERYTHING) as sandbox:
        assert sandbox.run(textwrap.dedent(code), "", 5).output == b"1\n"
        size = marker.stat().st_size
        time.sleep(0.2)
        assert marker.stat().st_size == size > 0


def test_without_any_filter_a_candidate_that_kills_the_launcher_leaves_nothing_either():
    code = """
        import os, time
        parent = os.getppid()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0: time.sleep(1000)
            os._exit(0)
        os.kill(parent, 9)
        time.sleep(1000)
    """
    with Sandbox(SMALL, minimum="process", without=EVERYTHING) as sandbox:
        sandbox.run("", "", 5)
        processes = launcher_processes(sandbox)
        with pytest.raises(SandboxError):
            sandbox.run(textwrap.dedent(code), "", 5)
        wait_until_gone(processes)
        assert sandbox.run("print(1)", "", 5).output == b"1\n"


# --- attacks that the verdict does not show ---------------------------------------------------------------------------


@pytest.fixture(params=[(), ("namespaces",)], ids=["all", "without namespaces"])
def strict(request, level):
    """Every level at which untrusted code is run by default."""
    if level == "process" or (level == "filtered" and not request.param):
        pytest.skip(f"this machine reaches '{level}'")
    with Sandbox(SMALL, without=request.param) as sandbox:
        yield sandbox


def test_files_outside_cannot_be_read_or_made(strict, tmp_path):
    os.chmod(tmp_path, 0o777)
    secret = tmp_path / "secret"
    secret.write_text("the expected output")
    for code in (
        f"print(open({str(secret)!r}).read())",
        f"import os\nprint(os.listdir({str(tmp_path)!r}))",
        f"open({str(tmp_path / 'new')!r}, 'w').write('x')",
        f"import os\nos.mkdir({str(tmp_path / 'new')!r})",
        f"import os\nos.symlink({str(secret)!r}, 'link')\nprint(open('link').read())",
        f"import os\nos.link({str(secret)!r}, 'link')\nprint(open('link').read())",
        f"import os\nos.remove({str(secret)!r})",
        f"import os\nos.rename({str(secret)!r}, {str(tmp_path / 'other')!r})",
        f"import os\nos.truncate({str(secret)!r}, 0)",
        f"import os\nos.chmod({str(secret)!r}, 0)",
    ):
        run = strict.run(code, "", 5)
        assert run.status == "error", (code, run)
        assert run.output == b""
    assert secret.read_text() == "the expected output"
    assert os.listdir(tmp_path) == ["secret"]


def test_no_connection_leaves_it(strict):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        assert strict.run(f"import socket\nsocket.create_connection(('127.0.0.1', {port}))", "", 5).status == "error"
        with pytest.raises(TimeoutError):
            server.accept()


def test_no_signal_leaves_it(strict):
    strict.run("", "", 5)
    victims = [os.getpid(), *(process.pid for process in launcher_processes(strict))]
    code = f"""
        import ctypes, os, signal
        c = ctypes.CDLL(None)
        for pid in {victims} + [0, 1, -1, 2, os.getppid()]:
            for kill in (lambda: os.kill(pid, 9), lambda: os.killpg(pid, 9), lambda: os.pidfd_open(pid),
                         lambda: os.sched_setaffinity(pid, [0]), lambda: os.setpriority(os.PRIO_PROCESS, pid, 19)):
                try:
                    kill()
                    print('done', pid)
                except OSError:
                    continue
            for number, *rest in ((62, pid, 9), (234, pid, pid, 9), (200, pid, 9), (101, 16, pid), (310, pid)):
                if pid != os.getpid() and c.syscall(number, *rest) != -1: print('called', number, pid)
    """
    run = strict.run(textwrap.dedent(code), "", 5)
    assert (run.status, run.output) == ("ok", b""), run
    assert strict.run("print(1)", "", 5).output == b"1\n"
    assert [process.pid for process in launcher_processes(strict)] == victims[1:]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers and the machine code are those of x86-64")
def test_no_dangerous_system_call_gets_through(strict):
    """By number, as no library would make them: io_uring, userfaultfd, memfd, bpf, kcmp, pidfd, x32's and more."""
    code = """
        import ctypes, errno
        call = ctypes.CDLL(None, use_errno=True).syscall
        call.restype = ctypes.c_long
        numbers = [29, 41, 53, 57, 58, 59, 62, 68, 85, 90, 101, 103, 105, 129, 155, 161, 165, 175, 200, 203, 222, 237,
                   246, 250, 254, 265, 266, 272, 297, 298, 300, 303, 304, 308, 310, 311, 312, 317, 319, 321, 322, 323,
                   424, 425, 426, 428, 429, 432, 434, 437, 438, 440, 442, 444, 445, 446, 447, 448, 453, 462]
        numbers += [0x40000000 + n for n in (0, 1, 39, 59, 512, 520)]
        for number in numbers:
            if call(number, 0, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != errno.EPERM:
                print(number, ctypes.get_errno())
    """
    run = strict.run(textwrap.dedent(code), "", 5)
    assert (run.status, run.output) == ("ok", b""), run


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers and the machine code are those of x86-64")
def test_the_calls_of_another_architecture_kill(strict):
    code = """
        import ctypes
        mmap = ctypes.CDLL(None).mmap
        mmap.restype, mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p] + [ctypes.c_long] * 5
        page = mmap(None, 4096, 7, 0x22, -1, 0)
        ctypes.memmove(page, bytes.fromhex("b814000000 cd80 c3"), 8)  # mov eax, 20 (i386's getpid); int 0x80; ret
        print("before", flush=True)
        print(ctypes.CFUNCTYPE(ctypes.c_int)(page)())
    """
    run = strict.run(textwrap.dedent(code), "", 5)
    assert (run.status, run.output) == ("error", b"before\n"), run
    assert run.message in ("killed by SIGSYS", "killed by SIGSEGV")  # the latter where the kernel knows no i386 at all


def test_one_run_finds_nothing_of_another(strict):
    word = "WEDNESDAYS" + "CHILD"
    strict.run(f"kept = {word!r}\ntry: open('kept', 'w').write(kept)\nexcept OSError: kept += '!'", word, 5)
    strict.call(f"kept = {word!r}\ndef f(x): return x + kept", "f", [[word]], 5, 5, lambda run: True)
    code = """
        import gc, os, sys
        half = 'WEDNESDAYS'
        def texts(o):
            return o.values() if isinstance(o, dict) else o if isinstance(o, (list, tuple, set)) else ()
        for o in gc.get_objects():
            for x in list(texts(o)):
                if isinstance(x, str) and half in x and x != half: print('found')
        print(len(os.listdir('.')))
    """
    assert strict.run(textwrap.dedent(code), "", 5).output == b"0\n"


def test_what_is_expected_never_leaves_the_grader(monkeypatch):
    from cohort.rewards.verifiers.code.grade import Rules, grade
    from cohort.rewards.verifiers.code.tests import read_tests

    sent = bytearray()
    real = session.Session._send

    def spy(self, descriptor, data):
        sent.extend(data)
        real(self, descriptor, data)

    monkeypatch.setattr(session.Session, "_send", spy)
    rules = Rules(5.0, 10.0, 1e-6, every=True)
    with Sandbox(SMALL, minimum="process") as sandbox:
        program = read_tests({"inputs": ["given-1"], "outputs": ["EXPECTED-1"]})
        assert grade("print(input())", program, sandbox, rules).verdict == "wrong"
        function = read_tests({"fn_name": "f", "inputs": [["given-2"]], "outputs": ["EXPECTED-2"]})
        assert grade("def f(x): return x", function, sandbox, rules).verdict == "wrong"
    assert b"given-1" in sent
    assert b"given-2" in sent
    assert b"EXPECTED" not in sent


# --- when the sandbox itself fails ------------------------------------------------------------------------------------


def test_a_launcher_that_dies_is_an_error_of_the_sandbox_and_the_next_run_has_another():
    with Sandbox(SMALL, minimum="process") as sandbox:
        sandbox.run("", "", 5)
        launcher = launcher_processes(sandbox)[-1]
        launcher.send_signal(signal.SIGKILL)
        wait_until_gone([launcher])
        with pytest.raises(SandboxError):
            sandbox.run("print(1)", "", 5)
        assert sandbox.run("print(1)", "", 5).output == b"1\n"


@pytest.mark.fault(
    "SIGKILL of the sandbox's launcher at work", "the candidate ends with it, and the group is scored again"
)
def test_a_launcher_that_dies_in_the_middle_takes_the_candidate_with_it():
    assert issubclass(SandboxError, InfrastructureError)
    with Sandbox(SMALL, minimum="process") as sandbox:
        sandbox.run("", "", 5)
        launcher = launcher_processes(sandbox)[-1]
        seen = []

        def kill_when_busy():
            while not (children := launcher.children(recursive=True)):
                time.sleep(0.01)
            time.sleep(0.1)
            seen.extend(launcher.children(recursive=True) or children)
            launcher.send_signal(signal.SIGKILL)

        killer = threading.Thread(target=kill_when_busy)
        killer.start()
        with pytest.raises(SandboxError):
            sandbox.run("while True: pass", "", 60)
        killer.join()
        assert seen
        wait_until_gone(seen)


def test_a_launcher_that_cannot_start_is_an_error_of_the_sandbox(monkeypatch):
    monkeypatch.setattr("cohort.sandbox.local._command", lambda channel: ["/nowhere/python"])
    with pytest.raises(SandboxError, match="cannot be started"):
        Sandbox(minimum="process").run("", "", 5)
    monkeypatch.setattr("cohort.sandbox.local._command", lambda channel: [sys.executable, "-c", "pass"])
    with pytest.raises(SandboxError):
        Sandbox(minimum="process").run("", "", 5)


# --- nothing stays ----------------------------------------------------------------------------------------------------


def test_when_the_grader_is_killed_everything_ends():
    script = textwrap.dedent(
        """
        from cohort.sandbox import Limits, Sandbox
        for without in ((), ("namespaces",), ("namespaces", "landlock", "seccomp")):
            sandbox = Sandbox(Limits(memory_mb=256), minimum="process", without=without)
            sandbox.run("print(1)", "", 5)
            globals().setdefault("kept", []).append(sandbox)
        print("ready", flush=True)
        sandbox.run("while True: pass", "", 1000)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True) as grader:
        assert grader.stdout.readline() == b"ready\n"
        processes = psutil.Process(grader.pid).children(recursive=True)
        assert len(processes) >= 6
        os.killpg(grader.pid, signal.SIGKILL)
    wait_until_gone(processes)


def test_a_fork_of_the_grader_has_a_sandbox_of_its_own():
    with Sandbox(SMALL, minimum="process") as sandbox:
        sandbox.run("", "", 5)
        mine = [process.pid for process in launcher_processes(sandbox)]
        pid = os.fork()
        if pid == 0:
            ok = sandbox.run("print(2)", "", 5).output == b"2\n"
            other = [process.pid for process in launcher_processes(sandbox)]
            sandbox.close()
            os._exit(0 if ok and not set(mine) & set(other) else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert sandbox.run("print(1)", "", 5).output == b"1\n"
        assert [process.pid for process in launcher_processes(sandbox)] == mine


def test_the_grader_s_settings_do_not_reach_the_candidate(monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('mine')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "sitecustomize.py"))
    monkeypatch.setenv("SECRET", "42")
    monkeypatch.chdir(tmp_path)
    with Sandbox(SMALL, minimum="process") as sandbox:
        assert sandbox.run("import os, sys\nprint(dict(os.environ), len(sys.argv))", "", 5).output == b"{} 1\n"


def test_keeper_and_launcher_are_fresh_programs_with_one_thread_and_nothing_of_the_grader():
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        with Sandbox(SMALL, minimum="process") as sandbox:
            sandbox.run("", "", 5)
            running = [one for one in launcher_processes(sandbox) if one.status() != psutil.STATUS_ZOMBIE]
            keeper, *beneath = running
            assert beneath
            assert keeper.environ() == {}
            for process in (keeper, *beneath):
                assert process.num_threads() == 1
                assert process.cmdline()[1:4] == ["-I", "-S", "-c"]
            if os.geteuid() == 0:
                loaded = {os.path.basename(place.path) for one in (keeper, *beneath) for place in one.memory_maps()}
                assert not [name for name in loaded if "torch" in name or "cuda" in name or "numpy" in name]
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_limits_default_to_what_the_docs_say():
    assert Limits() == Limits(memory_mb=1024, output_kb=1024, files_mb=16, threads=32)
    assert local.WALL_PER_CPU == 4.0


@pytest.mark.fault("SIGKILL of the sandbox's keeper, which cleans up", "the next sandbox takes away what it left")
def test_what_a_killed_keeper_left_is_taken_away_by_the_next(monkeypatch):
    with Sandbox(SMALL, minimum="process", without=EVERYTHING) as sandbox:
        sandbox.run("", "", 5)
        keeper, *beneath = launcher_processes(sandbox)
        (directory,) = Path("/tmp").glob(f"cohort-sandbox-{keeper.pid}-*")
        keeper.kill()
        sandbox.close()
        wait_until_gone([keeper, *beneath])
        os.utime(directory, times=(0, 0))
        assert sandbox.run("print(1)", "", 5).output == b"1\n"
        assert not directory.exists()
        assert list(Path("/tmp").glob("cohort-sandbox-*"))  # its own
