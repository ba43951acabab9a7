"""Building the kernels, and what happens where they cannot be built."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys

import pytest

SHOW = "from cohort.kernels.library import kernels, why_not; print(kernels() is not None, why_not())"


def ask(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_they_can_be_switched_off():
    assert ask(COHORT_KERNELS="off") == "False COHORT_KERNELS switches them off"


def test_without_a_compiler(tmp_path):
    assert ask(PATH=str(tmp_path), CC="") == "False no C compiler is installed (for example: apt install gcc)"


def test_a_compiler_that_fails(tmp_path):
    broken = tmp_path / "cc"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo broken 1.0 && exit 0\necho "x.c:1: error: no" >&2\nexit 1\n'
    )
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    said = ask(CC=str(broken), XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert said == f"False {broken} could not build them: x.c:1: error: no"
    assert not list((tmp_path / "cache" / "cohort").iterdir())  # nothing half-written


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_they_are_built_once(tmp_path):
    assert ask(XDG_CACHE_HOME=str(tmp_path)).startswith("True")
    (built,) = (tmp_path / "cohort").iterdir()
    when = built.stat().st_mtime_ns
    assert ask(XDG_CACHE_HOME=str(tmp_path)).startswith("True")
    assert [file.stat().st_mtime_ns for file in (tmp_path / "cohort").iterdir()] == [when]


def cached(tmp_path):
    """A cache that holds the library, and the library."""
    assert ask(XDG_CACHE_HOME=str(tmp_path)).startswith("True")
    (built,) = (tmp_path / "cohort").iterdir()
    return built


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_library_that_others_can_write_is_not_loaded(tmp_path):
    """Writable by the group, by all, owned by somebody else, a link to elsewhere: built again, not loaded."""
    built = cached(tmp_path)
    assert stat.S_IMODE(built.parent.stat().st_mode) == 0o700
    planted = tmp_path / "planted.so"
    shutil.copy(built, planted)
    planted.chmod(0o777)
    for plant in (
        lambda: built.chmod(0o775),
        lambda: built.chmod(0o707),
        lambda: (built.unlink(), built.symlink_to(planted)),
        lambda: os.chown(built, 12345, -1) if os.geteuid() == 0 else built.chmod(0o777),
    ):
        plant()
        number = built.lstat().st_ino
        assert ask(XDG_CACHE_HOME=str(tmp_path)).startswith("True")
        assert built.lstat().st_ino != number
        assert stat.S_IMODE(built.lstat().st_mode) == 0o700
        assert built.lstat().st_uid == os.geteuid()


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_cache_that_others_can_write_is_closed(tmp_path):
    (tmp_path / "cohort").mkdir(mode=0o777)
    (tmp_path / "cohort").chmod(0o777)
    built = cached(tmp_path)
    assert stat.S_IMODE(built.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_cache_of_somebody_else_is_not_used(tmp_path):
    built = cached(tmp_path)
    os.chown(built.parent, 12345, -1)
    assert "belongs to somebody else; set XDG_CACHE_HOME" in ask(XDG_CACHE_HOME=str(tmp_path))


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_cache_below_a_directory_of_everybody_is_not_used(tmp_path):
    where = tmp_path / "open" / "cache"
    where.mkdir(parents=True)
    where.parent.chmod(0o777)
    assert f"everybody can write to {where.parent}" in ask(XDG_CACHE_HOME=str(where))
    where.parent.chmod(0o1777)  # as /tmp: only the owner of a directory can move it
    assert ask(XDG_CACHE_HOME=str(where)).startswith("True")
