"""Files that are whole or not there, metrics and rollouts that read back as they were written."""

from __future__ import annotations

import math

import pytest

from cohort.record.files import new_directory, write_bytes
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


def _float32(x):
    import numpy as np

    return float(np.float32(x))
