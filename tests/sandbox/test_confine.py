"""What a process has given up once it is confined, seen from inside, one measure at a time."""

import json
import os
import platform
import resource
import sys
import tempfile

import pytest

from cohort.sandbox import Limits, Sandbox
from cohort.sandbox.confine import Confinement, readable_directories
from cohort.sandbox.launcher import spawn
from cohort.sandbox.linux import landlock, seccomp
from cohort.sandbox.linux.namespaces import NOBODY
from cohort.sandbox.wire import READY, VALUE, read_frame, write_frame

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
LIMITS = Limits(memory_mb=300, files_mb=3, threads=5)


def confined(directory, look, **fields):
    """What `look` says in a process confined by the measures that `fields` switch on."""
    how = Confinement(
        **{
            "limits": LIMITS,
            "readable": readable_directories(),
            "directory": str(directory),
            "namespaces": False,
            "landlock": 0,
            "seccomp": False,
            "to_nobody": False,
            "tasks": None,
            **fields,
        }
    )
    null, (reading, writing) = os.open(os.devnull, os.O_RDWR), os.pipe()

    def task(_, results):
        write_frame(results, VALUE, json.dumps(look()).encode())
        return 0

    child = spawn(how, (null, null, null, writing), cpu_s=7, task=task)
    os.close(writing)
    frames = [read_frame(reading), read_frame(reading)]
    os.waitpid(child, 0)
    os.close(reading)
    os.close(null)
    assert frames[0] == (READY, b""), frames
    assert frames[1] is not None
    return json.loads(frames[1][1])


def status():
    with open("/proc/self/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def test_capabilities_and_new_privileges_are_gone(tmp_path):
    seen = confined(tmp_path, status)
    assert int(seen["CapEff"], 16) == int(seen["CapPrm"], 16) == int(seen["CapInh"], 16) == 0
    assert seen["NoNewPrivs"] == "1"


def test_the_limits_are_set_and_cannot_be_raised(tmp_path):
    def look():
        names = ("AS", "CPU", "FSIZE", "CORE", "NOFILE", "MEMLOCK", "NPROC")
        found = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in names}
        try:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        except ValueError:
            found["raised"] = False
        return found

    seen = confined(tmp_path, look, tasks=77)
    for name, value in (("AS", 300 << 20), ("CPU", 7), ("FSIZE", 3 << 20), ("CORE", 0), ("MEMLOCK", 0), ("NPROC", 77)):
        assert seen[name] == [value, value], name
    assert seen["NOFILE"][1] <= 64
    assert seen["raised"] is False


def test_it_has_a_session_of_its_own_and_five_descriptors(tmp_path):
    def look():
        return [
            os.getsid(0) == os.getpid(),
            os.getcwd(),
            os.umask(0),
            sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
        ]

    kept = open("/dev/null")  # noqa: SIM115 (it must not be inherited)
    own_session, directory, umask, descriptors = confined(tmp_path, look)
    kept.close()
    assert own_session
    assert directory == str(tmp_path)
    assert umask == 0o077
    assert descriptors == [0, 1, 2, 3, 4]


def test_landlock_leaves_the_library_and_nothing_else(tmp_path):
    (tmp_path / "file").write_text("x")
    try:
        version = landlock.abi()
    except OSError as error:
        pytest.skip(str(error))

    def attempt(action):
        try:
            action()
        except OSError as error:
            return type(error).__name__
        return "done"

    def look():
        return {
            "library": attempt(lambda: open(os.__file__).close()),
            "null": attempt(lambda: open("/dev/null").close()),
            "own": attempt(lambda: open("file").close()),
            "new": attempt(lambda: open("new", "w").close()),
            "append": attempt(lambda: open("file", "a").close()),
            "truncate": attempt(lambda: os.truncate("file", 0)) if version >= 3 else "PermissionError",
            "remove": attempt(lambda: os.remove("file")),
            "directory": attempt(lambda: os.mkdir("d")),
            "root": attempt(lambda: os.listdir("/")),
            "passwd": attempt(lambda: open("/etc/passwd").close()),
            "library, to write": attempt(lambda: open(os.__file__, "a").close()),
            "program": attempt(lambda: os.execv("/bin/true", ["true"])),
        }

    seen = confined(tmp_path, look, landlock=version)
    assert {name for name, result in seen.items() if result == "done"} == {"library", "null", "own"}
    assert {result for result in seen.values() if result != "done"} == {"PermissionError"}
    assert (tmp_path / "file").read_text() == "x"


def test_older_versions_of_landlock_do_too(tmp_path):
    try:
        newest = landlock.abi()
    except OSError as error:
        pytest.skip(str(error))

    def look():
        found = []
        for path in ("/", "/etc/passwd", os.__file__):
            try:
                os.close(os.open(path, os.O_RDONLY))
                found.append(path)
            except PermissionError:
                continue
        return found

    for version in range(1, newest + 1):
        assert confined(tmp_path, look, landlock=version) == [os.__file__], version


def test_no_version_of_landlock_lets_it_make_files_empty(tmp_path):
    """Before version 3 it knows nothing of that."""
    try:
        newest = landlock.abi()
        seccomp.available()
    except (OSError, KeyError) as error:
        pytest.skip(str(error))
    outside, inside = tmp_path / "outside", tmp_path / "its own" / "file"
    inside.parent.mkdir()
    for file in (outside, inside):
        file.write_text("precious")

    def look():
        done = []
        for name, action in {
            "truncate": lambda path: os.truncate(path, 0),
            "open": lambda path: os.close(os.open(path, os.O_RDONLY | os.O_TRUNC)),
            "create": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)),
        }.items():
            for path in (str(outside), str(inside)):
                try:
                    action(path)
                    done.append((name, path))
                except PermissionError:
                    continue
        return [done, open(inside).read()]

    for version in range(1, newest + 1):
        assert confined(inside.parent, look, landlock=version, seccomp=True) == [[], "precious"], version
        assert outside.read_text() == inside.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_root_becomes_nobody():
    with tempfile.TemporaryDirectory() as directory:
        seen = confined(directory, status, to_nobody=True)
    assert seen["Uid"].split() == seen["Gid"].split() == [str(NOBODY)] * 4
    assert seen["Groups"].strip() == ""
    assert int(seen["CapEff"], 16) == 0


def test_this_machine_reaches_what_its_kernel_offers():
    """Without this, a sandbox that is broken everywhere would only skip the tests of its attacks."""
    wanted = "filtered"
    try:
        landlock.abi()
        seccomp.available()
    except (OSError, KeyError):
        wanted = "process"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            import ctypes

            flags = 0x00020000 | 0x10000000 | 0x40000000 | 0x20000000 | 0x08000000 | 0x04000000
            status = int(ctypes.CDLL(None).unshare(flags) != 0)
        finally:
            os._exit(status)
    namespaces = os.waitpid(child, 0)[1] == 0
    with Sandbox(minimum="process") as sandbox:
        reached = sandbox.isolation
    if wanted == "process":
        assert reached.level == "process"
    else:
        assert reached.level == ("isolated" if namespaces else "filtered"), reached
    assert platform.machine() not in ("x86_64", "aarch64") or "no table" not in reached.missing.get("seccomp", "")
