"""Kill it at any instant; resuming gives the bits of a run that was never killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cohort.record.metrics import is_timing, read_metrics
from cohort.record.rollouts import read_groups
from cohort.record.verify import verify
from cohort.types import UserError
from forked import Cohort

RECIPE = """
name = "killed"
seed = 5
[task]
source = "word_problems"
levels = [1]
[run]
directory = "runs"
threads = 1
save_every = 2
[[stage]]
kind = "sft"
name = "start"
policy.scratch = { hidden_size = 32, layers = 1, heads = 2, kv_heads = 1, head_dim = 16, intermediate_size = 64 }
supervised.examples_per_step = 8
optimizer.learning_rate = 3e-3
run.steps = 5
[[stage]]
kind = "grpo"
name = "rl"
rollout = { prompts_per_step = 3, group_size = 4, max_tokens = 10, max_staleness = 1 }
reward = "vowels:score"
objective = { preset = "grpo" }
reference = { update_every = 3 }
optimizer = { learning_rate = 1e-2, updates_per_batch = 2, schedule = "cosine" }
evaluate = { problems = 6, samples = 2, traces = 4 }
run.steps = 9
run.evaluate_every = 4
"""
REWARD = 'def score(completion):\n    return sum(c in "aeiou" for c in completion) / (1 + len(completion))\n'


def start(where: Path, *more: str) -> Cohort:
    return Cohort("train", "recipe.toml", *more, cwd=where, log=where / "console.log")


def start_alone(where: Path) -> subprocess.Popen:
    """From nothing, with another seed for the hashes of strings."""
    with (where / "console.log").open("ab") as log:
        command = [sys.executable, "-m", "cohort.cli", "train", "recipe.toml"]
        return subprocess.Popen(command, cwd=where, stdout=log, stderr=log)


def prepare(where: Path) -> Path:
    where.mkdir()
    (where / "recipe.toml").write_text(RECIPE)
    (where / "vowels.py").write_text(REWARD)
    return where


def finish(where: Path, *more: str) -> None:
    assert start(where, *more).wait(timeout=200) == 0, (where / "console.log").read_text()


def steps_done(where: Path) -> int:
    """Lines written so far by both stages."""
    files = [where / "runs/killed/stages/start/metrics.jsonl", where / "runs/killed/metrics.jsonl"]
    return sum(len(file.read_bytes().splitlines()) for file in files if file.exists())


def same_run(a: Path, b: Path) -> None:
    """Weights, metrics (but for timings) and every recorded rollout are equal, bit for bit."""
    for stage in ("runs/killed/stages/start", "runs/killed"):
        ours, theirs = (load_file(x / stage / "final/model.safetensors") for x in (a, b))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[k], theirs[k]) for k in ours)
        ours_said, theirs_said = (read_metrics(x / stage / "metrics.jsonl") for x in (a, b))
        assert len(ours_said) == len(theirs_said)
        for line, other in zip(ours_said, theirs_said, strict=True):
            assert {k: v for k, v in line.items() if not is_timing(k)} == {
                k: v for k, v in other.items() if not is_timing(k)
            }
    logs = [sorted((x / "runs/killed/log").glob("*.parquet")) for x in (a, b)]
    assert [p.name for p in logs[0]] == [p.name for p in logs[1]]
    assert len(logs[0]) == 9 + 2 * 4  # nine steps; greedy and sampled evaluations at 0, 4, 8 and 9
    for ours, theirs in zip(*logs, strict=True):
        assert read_groups(ours) == read_groups(theirs)


@pytest.mark.slow
def test_killed_at_random_instants_and_resumed(tmp_path):
    whole, killed = prepare(tmp_path / "whole"), prepare(tmp_path / "killed")
    draw = random.Random()  # not seeded on purpose: every run of this test kills somewhere else
    uninterrupted = start_alone(whole)
    for target in sorted(draw.sample(range(1, 15), 3)):
        process = start(killed, "--resume")
        deadline = time.monotonic() + 120
        while steps_done(killed) < target and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(draw.random() * 0.15)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (killed / "runs/killed/log/chain.jsonl").exists():
            assert verify(killed / "runs/killed").holds
    finish(killed, "--resume")
    assert verify(killed / "runs/killed").holds
    assert uninterrupted.wait(timeout=200) == 0, (whole / "console.log").read_text()
    same_run(whole, killed)


@pytest.fixture
def tmp_path(place):
    return place


class Crash(BaseException):
    """Not an Exception, so that nothing handles it."""


@pytest.mark.fault("a crash at a write", "nothing half is at a name; it goes on from its last checkpoint")
@pytest.mark.parametrize("at", [1, 6, 13, 20, 28, 40])
def test_a_crash_at_any_write_leaves_nothing_half_written(run, once, tmp_path, monkeypatch, at):
    settings = {"rollout": {"max_staleness": 1}, "objective": {"preset": "grpo"}, "evaluate": {"problems": 3}}
    expected = once("expected", lambda: run(name="expected", **settings))
    calls = 0
    fsync = os.fsync

    def failing(handle):
        nonlocal calls
        calls += 1
        if calls == at:
            raise Crash
        fsync(handle)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(Crash):
        run(name="crashed", **settings)
    monkeypatch.setattr(os, "fsync", fsync)
    if (tmp_path / "runs/crashed/log/chain.jsonl").exists():
        assert verify(tmp_path / "runs/crashed").holds
    resumed = run(name="crashed", resume=True, **settings)
    a, b = (load_file(done.final / "model.safetensors") for done in (expected, resumed))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert [line["step"] for line in resumed.metrics] == [0, 1, 2, 3, 4]
    assert verify(resumed.directory).holds


def test_a_finished_run_is_shown_and_not_repeated(run):
    first = run()
    before = (first.final / "model.safetensors").stat().st_mtime_ns
    again = run(resume=True)
    assert (again.final / "model.safetensors").stat().st_mtime_ns == before


def test_a_run_is_never_overwritten(run):
    run()
    with pytest.raises(
        UserError, match=r"already holds a run\. Continue it with resume=True, start another with name=\"OTHER\""
    ):
        run()


def test_a_run_is_never_continued_with_another_recipe(run):
    run()
    with pytest.raises(UserError, match=r"optimizer.learning_rate was 0.01 and is 0.02"):
        run(resume=True, optimizer={"learning_rate": 0.02})
    run(resume=True, run={"workers": 2})
    with pytest.raises(UserError, match="begun with another recipe"):  # the same, as a stage that has a name
        run(resume=True, stage=[{"name": "cold"}])
    run(name="staged", stage=[{"name": "cold"}])
    with pytest.raises(UserError, match="begun with another recipe"):
        run(name="staged", resume=True)


def test_two_processes_cannot_train_in_one_directory(run, tmp_path):
    import fcntl

    where = tmp_path / "runs" / "small"
    where.mkdir(parents=True)
    with (where / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is training"):
            run()
