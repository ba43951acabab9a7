"""What happens to a run's directory while, or before, a run uses it: it is noticed and named, never gone on beside.

Tried: the directory deleted, renamed, renamed with another in its place, its lock file replaced, while a step runs and
while a checkpoint is written; recipe.toml, environment.json, gate.json and metrics.jsonl missing, cut off, empty, `[]`,
`null`, `123`; lines of metrics.jsonl torn, in the middle too; no space and no rights, before the first step and later.
"""

from __future__ import annotations

import errno
import io
import os
import shutil

import pytest

from cohort.record.metrics import read_metrics
from cohort.record.verify import verify
from cohort.train.grpo.training import GrpoTraining
from cohort.types import UserError
from cohort.views.console import Console

SETTINGS = {"evaluate": {"problems": 0}}


def delete(where):
    shutil.rmtree(where)


def rename(where):
    where.rename(where.with_name("moved"))


def replace(where):
    rename(where)
    (where / "log").mkdir(parents=True)
    (where / ".lock").touch()


def unlock(where):
    (where / ".lock").unlink()
    (where / ".lock").touch()


@pytest.mark.fault("the run directory is deleted, renamed or replaced", "it stops, and writes nothing more")
@pytest.mark.parametrize("how", [delete, rename, replace, unlock])
@pytest.mark.parametrize("when", ["step", "save"])
def test_a_directory_that_goes_while_a_run_uses_it_is_not_begun_again(run, tmp_path, monkeypatch, how, when):
    where, original = tmp_path / "runs/small", getattr(GrpoTraining, when)

    def interfering(self, argument):
        found = original(self, argument) if when == "save" else None
        if when == "save" or argument == 3:
            how(where)
        return original(self, argument) if when == "step" else found

    monkeypatch.setattr(GrpoTraining, when, interfering)
    with pytest.raises(UserError, match=r"runs/small was deleted, renamed or replaced while this run used it"):
        run(**SETTINGS)
    if how in (delete, rename):
        assert not where.exists()
    if how is replace:
        assert sorted(path.name for path in where.rglob("*")) == [".lock", "log"]
    if how in (rename, replace):
        monkeypatch.undo()
        shutil.rmtree(where, ignore_errors=True)
        where.with_name("moved").rename(where)
        assert [line["step"] for line in run(resume=True, **SETTINGS).metrics][-1] == 4


@pytest.fixture
def tmp_path(place):
    return place


@pytest.fixture
def begun(run, once):
    """The directory of a run of four steps that is not finished."""
    done = once("done", lambda: run(**SETTINGS)).directory
    shutil.rmtree(done / "final")
    return done


CONTENTS = {
    "missing": None,
    "empty": b"",
    "cut off": 30,
    "[]": b"[]",
    "null": b"null",
    "123": b"123",
    "no text": b"\xff",
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", ["recipe.toml", "environment.json"])
def test_a_part_that_is_missing_or_damaged_is_named(run, begun, name, content):
    file = begun / name
    left = CONTENTS[content]
    if left is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:left] if isinstance(left, int) else left)
    before = {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=rf"{name} is (missing|damaged)|begun with another recipe"):
        run(resume=True, **SETTINGS)
    assert {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["gate.json", "contamination.json"])
@pytest.mark.parametrize("left", [b"", b'{"grpo": {}}', b'{"grpo"'])
def test_damaged_findings_of_before_the_run_are_named_and_may_be_deleted(run, begun, name, left):
    (begun / name).write_bytes(left)
    failed = [check.detail for check in verify(begun).checks if check.status == "failed"]
    assert any(f"{name} is not as it was written" in detail for detail in failed)
    with pytest.raises(UserError, match=rf"{name} is damaged.*delete it"):
        run(resume=True, **SETTINGS)
    (begun / name).unlink()
    run(resume=True, **SETTINGS)


@pytest.mark.parametrize(
    ("line", "left"),
    [(2, b'{"step": 2, "lo'), (1, b"123"), (3, b"null"), (2, b"[]"), (4, b'{"step": "4"}'), (3, b"\xff")],
)
def test_lines_of_the_metrics_that_are_lost_are_said(run, begun, line, left):
    file = begun / "metrics.jsonl"
    lines = file.read_bytes().splitlines()
    place = next(i for i, raw in enumerate(lines) if raw.startswith(b'{"step":%d,' % line))
    file.write_bytes(b"\n".join([*lines[:place], left, *lines[place + 1 :]]) + b"\n")
    text = io.StringIO()
    run(resume=True, console=Console(file=text, width=300), **SETTINGS)
    assert f"metrics.jsonl has no line of step {line}: it was lost or damaged" in text.getvalue()
    assert line not in [found["step"] for found in read_metrics(file)]


def test_metrics_that_are_missing_are_said(run, begun):
    (begun / "metrics.jsonl").unlink()
    text = io.StringIO()
    run(resume=True, console=Console(file=text, width=300), **SETTINGS)
    assert "has no line of step 1, 2, 3, 4" in text.getvalue()
    (begun / "metrics.jsonl").unlink(missing_ok=True)
    done = run(resume=True, **SETTINGS)
    with pytest.raises(UserError, match=r"metrics.jsonl is missing"):
        _ = done.metrics


NUMBERS = [errno.ENOSPC, errno.EPERM, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EIO]


WHEN = [*((number, at) for number in NUMBERS[:2] for at in (1, 2, 3, 7, 9)), *((number, 7) for number in NUMBERS[2:])]


@pytest.mark.fault("ENOSPC, EDQUOT, EIO, EROFS, EPERM, EACCES while a file is synced", "one sentence; later it goes on")
@pytest.mark.parametrize(("number", "at"), WHEN)
def test_a_disk_that_fails_gets_a_sentence_and_the_run_goes_on_later(run, tmp_path, monkeypatch, number, at):
    calls, fsync = [], os.fsync

    def failing(handle):
        calls.append(handle)
        if len(calls) >= at:
            raise OSError(number, os.strerror(number), str(tmp_path / "runs/small/file"))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(UserError, match=rf"cannot write to .*{os.strerror(number)}"):
        run(**SETTINGS)
    monkeypatch.undo()
    assert [line["step"] for line in run(resume=True, **SETTINGS).metrics][-1] == 4


@pytest.mark.fault("a file system without locks", "it is refused before anything is written")
def test_a_file_system_without_locks_is_refused(run, monkeypatch):
    import fcntl

    def unsupported(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(
        UserError, match=r"runs/small cannot be locked \(No locks available\), so a second process could"
    ):
        run()


def test_a_lock_file_that_is_a_link_is_not_followed(run, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "runs/small").mkdir(parents=True)
    (tmp_path / "runs/small/.lock").symlink_to(victim)
    with pytest.raises(UserError, match="cannot write to"):
        run(**SETTINGS)
    assert victim.read_text() == "mine"
