"""Building the kernels, and what happens where they cannot be built."""

from __future__ import annotations

import os
import shutil
import stat

import pytest

from cohort.kernels import library
from forked import printed

SHOW = "from cohort.kernels.library import kernels, why_not; print(kernels() is not None, why_not())"


def ask(**environment: str) -> str:
    return printed(SHOW, **environment).strip()


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


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Builds into a cache with a compiler that writes one line, and counts how often."""
    compiler, count = tmp_path / "cc", tmp_path / "count"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo quick 1.0 && exit 0\n'
        f'while [ "$1" != -o ]; do shift; done\necho library > "$2"\necho once >> {count}\n'
    )
    compiler.chmod(0o755)

    def start(cache=tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        path = library._compile(str(compiler))
        return path, len(count.read_text().splitlines())

    return start


def test_a_library_that_others_can_write_is_not_loaded(build, tmp_path):
    """Writable by the group, by all, owned by somebody else, a link to elsewhere: built again, not loaded."""
    built, _ = build()
    assert build() == (built, 1)
    planted = tmp_path / "planted.so"
    planted.write_text("planted")
    plants = (
        lambda: built.chmod(0o775),
        lambda: built.chmod(0o707),
        lambda: (built.unlink(), built.symlink_to(planted)),
        lambda: os.chown(built, 12345, -1) if os.geteuid() == 0 else built.chmod(0o777),
    )
    for number, plant in enumerate(plants, start=2):
        plant()
        assert build() == (built, number)
        assert stat.S_IMODE(built.lstat().st_mode) == 0o700
        assert built.lstat().st_uid == os.geteuid()
        assert built.read_text() == "library\n"
    assert planted.read_text() == "planted"


def test_a_cache_that_others_can_write_is_closed(build, tmp_path):
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort").chmod(0o777)
    build()
    assert stat.S_IMODE((tmp_path / "cohort").stat().st_mode) == 0o700
    if os.geteuid() == 0:
        os.chown(tmp_path / "cohort", 12345, -1)
        with pytest.raises(OSError, match="belongs to somebody else; set XDG_CACHE_HOME"):
            build()


def test_a_cache_below_a_directory_of_everybody_is_not_used(build, tmp_path):
    where = tmp_path / "open" / "cache"
    where.mkdir(parents=True)
    where.parent.chmod(0o777)
    with pytest.raises(OSError, match=f"everybody can write to {where.parent}"):
        build(where)
    assert f"everybody can write to {where.parent}" in ask(XDG_CACHE_HOME=str(where))
    where.parent.chmod(0o1777)  # as /tmp: only the owner of a directory can move it
    build(where)
