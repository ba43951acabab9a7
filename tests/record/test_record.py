"""Files that are whole or not there, metrics and rollouts that read back as they were written."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from cohort.record.files import discard, new_directory, sweep, write_bytes
from cohort.record.metrics import MetricsLog, is_timing, read_metrics
from cohort.record.rollouts import read_groups, write_groups
from cohort.types import Group, Prompt, Rollout


def test_a_file_is_replaced_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "a" / "file"
    write_bytes(path, b"old")
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "step-000001"
    with pytest.raises(FileNotFoundError), new_directory(path) as new:
        (new / "no such place" / "half").write_text("x")
    assert list(tmp_path.iterdir()) == []
    with new_directory(path) as new:
        (new / "whole").write_text("x")
        assert not path.exists()
    assert [p.name for p in path.iterdir()] == ["whole"]
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001"]


def fill(path, names):
    with new_directory(path) as new:
        for name in names:
            (new / name).write_text("x")


@pytest.mark.parametrize("way", [discard, lambda path: fill(path, "d")], ids=["deleted", "replaced"])
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_kill_while_a_directory_is_deleted_or_replaced_leaves_no_half_at_its_name(tmp_path, monkeypatch, after, way):
    path, left, unlink = tmp_path / "step-000001", iter(range(after)), os.unlink
    fill(path, "abc")

    def dying(*args, **options):
        if next(left, None) is None:
            raise KeyboardInterrupt
        unlink(*args, **options)

    monkeypatch.setattr(os, "unlink", dying)
    with pytest.raises(KeyboardInterrupt):
        way(path)
    monkeypatch.undo()
    there = "".join(sorted(file.name for file in path.iterdir())) if path.exists() else ""
    assert there in ("", "abc", "d")  # gone, not yet touched, or replaced
    sweep(tmp_path)
    assert {found.name for found in tmp_path.iterdir()} <= {"step-000001"}


@pytest.mark.parametrize("plant", ["a link to a file", "a link to nowhere", "a link to a directory", "a directory"])
def test_what_was_planted_at_a_temporary_name_is_not_written_through(tmp_path, plant):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("mine")
    target = {"a link to a file": "victim/file", "a link to nowhere": "victim/new", "a link to a directory": "victim"}
    run = tmp_path / "run"
    run.mkdir()
    for name in (".file.tmp", ".directory.tmp", ".directory.old"):
        if plant in target:
            (run / name).symlink_to(tmp_path / target[plant])
        else:
            shutil.copytree(victim, run / name)
    write_bytes(run / "file", b"ours")
    for content in ("first", "second"):
        with new_directory(run / "directory") as new:
            (new / "x").write_text(content)
    assert (run / "file").read_bytes() == b"ours"
    assert (run / "directory/x").read_text() == "second"
    assert sorted(file.name for file in run.iterdir()) == ["directory", "file"]
    assert [file.name for file in victim.iterdir()] == ["file"]
    assert (victim / "file").read_text() == "mine"


def test_metrics_append_and_forget(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in range(4):
        log.write(step, {"reward/mean": step / 3, "bad": math.nan})
    assert [line["step"] for line in read_metrics(log.path)] == [0, 1, 2, 3]
    assert read_metrics(log.path)[1] == {"step": 1, "reward/mean": 1 / 3, "bad": None}
    with log.path.open("ab") as file:
        file.write(b'{"step": 4, "rew')  # torn by a crash
    log.keep_until(2)
    assert [line["step"] for line in read_metrics(log.path)] == [0, 1, 2]
    assert b"rew\n" not in log.path.read_bytes()


def test_timings_are_known_by_name():
    assert is_timing("time/step_s")
    assert is_timing("memory/peak_gb")
    assert is_timing("tokens_per_s")
    assert not is_timing("tokens/sampled")


def test_groups_read_back_as_they_were(tmp_path):
    chat = ({"role": "user", "content": "é?"},)
    prompt = Prompt.make(messages=chat, answer=[1, 2], tags={"level": 2, "odd": None})
    rollouts = (
        Rollout((5, 6), (True, False), (-0.1, 0.0), 3, "stop", "a \U0001f600"),
        Rollout((7,), (True,), (-2.0000000123,), 3, "length", ""),
    )
    exact = tuple(
        Rollout(r.tokens, r.mask, tuple(_float32(x) for x in r.logprobs), r.version, r.finish, r.text) for r in rollouts
    )
    whole = Group(
        ticket=4,
        prompt=prompt,
        rollouts=exact,
        scores={"a": (1.0, 0.0), "b": (0.1, math.nan)},
        rewards=(1.0, 0.0),
        accuracy=(1.0, 0.0),
        advantages=(0.5, -0.5),
        token_advantages=((0.25, 0.75), (-0.5,)),
        disposition="trained",
    )
    failed = Group(5, Prompt.make(text="x"), (), {}, disposition="error", error="the server is down")
    write_groups(tmp_path / "step.parquet", [whole, failed], 9)
    first, second = read_groups(tmp_path / "step.parquet")
    assert repr(first) == repr(whole)
    assert repr(second) == repr(failed)
    assert "versions" not in pq.read_schema(tmp_path / "step.parquet").names  # a column where it says something
    mixed = whole.with_(rollouts=(replace(exact[0], versions=((0, 3), (1, 5))), exact[1]))
    assert write_groups(tmp_path / "mixed.parquet", [mixed], 9).versions == (3, 5)
    assert repr(read_groups(tmp_path / "mixed.parquet")) == repr([mixed])
    assert [list(one.spans) for one in mixed.rollouts] == [[(3, 0, 1), (5, 1, 2)], [(3, 0, 1)]]


def _float32(x):
    import numpy as np

    return float(np.float32(x))
