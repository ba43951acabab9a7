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
