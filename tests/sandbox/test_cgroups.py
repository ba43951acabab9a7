"""Control groups of both versions, on directories that look like the kernel's."""

import os
import time

import pytest

from cohort.sandbox.linux import cgroups


class Fake:
    """A tree of directories in which `mkdir` makes the files that the kernel would make."""

    def __init__(self, root, files):
        self.root, self.files = root, files
        self.forbidden = set()

    def install(self, monkeypatch):
        real = type(self.root).mkdir

        def mkdir(path, *args, **kwargs):
            if path.parent in self.forbidden:
                raise PermissionError(13, "Permission denied", str(path))
            real(path, *args, **kwargs)
            if path.name.startswith("cohort-"):
                for name in self.files(path):
                    (path / name).touch()

        def rmdir(path):
            for file in path.iterdir():
                file.unlink()
            os.rmdir(path)

        monkeypatch.setattr(type(self.root), "mkdir", mkdir)
        monkeypatch.setattr(type(self.root), "rmdir", rmdir)


@pytest.fixture
def version_2(tmp_path, monkeypatch):
    mount = tmp_path / "cgroup"
    (mount / "user.slice" / "session").mkdir(parents=True)
    (mount / "cgroup.controllers").write_text("cpu memory pids")
    (tmp_path / "own").write_text("0::/user.slice/session\n")
    fake = Fake(mount, lambda path: ["cgroup.procs", "memory.max", "memory.swap.max", "pids.max"])
    fake.install(monkeypatch)
    return fake, tmp_path / "own", mount


def test_version_2_beneath_our_own_group(version_2):
    _, own, mount = version_2
    group = cgroups.create("cohort-1", 1 << 30, 40, own, mount)
    directory = mount / "user.slice" / "session" / "cohort-1"
    assert group.directories == (directory,)
    assert (directory / "memory.max").read_text() == str(1 << 30)
    assert (directory / "memory.swap.max").read_text() == "0"
    assert (directory / "pids.max").read_text() == "40"
    group.join()
    assert (directory / "cgroup.procs").read_text() == str(os.getpid())
    group.remove()
    assert not directory.exists()


def test_version_2_goes_up_to_where_the_controllers_are_handed_down(version_2):
    fake, own, mount = version_2
    fake.forbidden = {mount / "user.slice" / "session"}
    fake.files = lambda path: ["cgroup.procs", "memory.max", "pids.max"] if path.parent == mount else ["cgroup.procs"]
    group = cgroups.create("cohort-1", 1 << 30, 40, own, mount)
    assert group.directories == (mount / "cohort-1",)
    assert not (mount / "user.slice" / "cohort-1").exists()
    assert not (mount / "cohort-1" / "memory.swap.max").exists()  # a missing file is never made


def test_nothing_is_left_where_no_group_can_be_made(version_2):
    fake, own, mount = version_2
    fake.files = lambda path: ["cgroup.procs"]
    with pytest.raises(OSError):
        cgroups.create("cohort-1", 1 << 30, 40, own, mount)
    assert not list(mount.rglob("cohort-1"))


def test_version_1_has_a_directory_for_each_controller(tmp_path, monkeypatch):
    mount = tmp_path / "cgroup"
    for name in ("memory/mine", "pids"):
        (mount / name).mkdir(parents=True)
    (tmp_path / "own").write_text("8:pids:/\n4:memory:/mine\n2:cpu,cpuacct:/\n0::/\n")
    fake = Fake(mount, lambda path: ["cgroup.procs", "memory.limit_in_bytes" if "memory" in str(path) else "pids.max"])
    fake.install(monkeypatch)
    group = cgroups.create("cohort-1", 5000, 40, tmp_path / "own", mount)
    assert group.directories == (mount / "memory" / "mine" / "cohort-1", mount / "pids" / "cohort-1")
    assert (mount / "memory" / "mine" / "cohort-1" / "memory.limit_in_bytes").read_text() == "5000"
    assert (mount / "pids" / "cohort-1" / "pids.max").read_text() == "40"
    group.remove()
    fake.forbidden = {mount / "pids"}
    with pytest.raises(PermissionError):
        cgroups.create("cohort-1", 5000, 40, tmp_path / "own", mount)
    assert not list(mount.rglob("cohort-1"))


def test_without_controllers_it_says_so(tmp_path):
    (tmp_path / "own").write_text("0::/\n")
    with pytest.raises(OSError, match="no control groups"):
        cgroups.create("cohort-1", 5000, 40, tmp_path / "own", tmp_path)


def test_what_a_killed_keeper_left_is_taken_away_by_the_next(version_2):
    _, own, mount = version_2
    where = mount / "user.slice" / "session"
    for name, age_s in (("cohort-7", 60), ("cohort-8", 0), ("cohort-work", 60)):
        (where / name).mkdir()
        os.utime(where / name, times=(time.time() - age_s,) * 2)
    group = cgroups.create("cohort-9", 1 << 30, 40, own, mount)
    assert sorted(path.name for path in where.iterdir()) == ["cohort-8", "cohort-9", "cohort-work"]
    group.remove()
