"""Kill a run with an environment while it samples, scores or learns: resuming gives the bits of a run never killed."""

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
from forked import Cohort

RECIPE = """
name = "killed"
seed = 5
[policy]
scratch = { hidden_size = 32, layers = 1, heads = 2, kv_heads = 1, head_dim = 16, intermediate_size = 64 }
[task]
source = "arithmetic"
[environment]
use = "talking:Talks"
[rollout]
prompts_per_step = 3
group_size = 4
max_tokens = 40
max_staleness = 1
stop = ["e", "s", " ", "a", "n", "1"]
[[reward]]
use = "talking:vowels"
[optimizer]
learning_rate = 1e-2
updates_per_batch = 2
[evaluate]
problems = 4
samples = 2
[run]
steps = 8
evaluate_every = 4
save_every = 2
directory = "runs"
threads = 1
gate = "off"
"""


def prepare(where: Path) -> Path:
    where.mkdir()
    (where / "recipe.toml").write_text(RECIPE)
    (where / "talking.py").write_text((Path(__file__).parent / "talking.py").read_text())
    return where


def start(where: Path) -> Cohort:
    return Cohort("train", "recipe.toml", "--resume", cwd=where, log=where / "console.log")


def start_alone(where: Path) -> subprocess.Popen:
    """From nothing, with another seed for the hashes of strings."""
    command = [sys.executable, "-m", "cohort.cli", "train", "recipe.toml", "--resume"]
    with (where / "console.log").open("ab") as log:
        return subprocess.Popen(command, cwd=where, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_killed_at_a_random_instant_and_resumed(tmp_path):
    whole, killed = prepare(tmp_path / "whole"), prepare(tmp_path / "killed")
    draw = random.Random()  # not seeded on purpose: every run of this test kills somewhere else
    uninterrupted, process = start_alone(whole), start(killed)
    target, file = draw.randint(1, 7), killed / "runs/killed/metrics.jsonl"
    deadline = time.monotonic() + 150
    while process.poll() is None and time.monotonic() < deadline:
        if file.exists() and len(file.read_bytes().splitlines()) >= target:
            break
        time.sleep(0.002)
    time.sleep(draw.random() * 0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for where, run in ((killed, start(killed)), (whole, uninterrupted)):
        assert run.wait(timeout=200) == 0, (where / "console.log").read_text()

    runs = [where / "runs/killed" for where in (whole, killed)]
    ours, theirs = (load_file(run / "final/model.safetensors") for run in runs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for line, other in zip(*(read_metrics(run / "metrics.jsonl") for run in runs), strict=True):
        assert {k: v for k, v in line.items() if not is_timing(k)} == {
            k: v for k, v in other.items() if not is_timing(k)
        }
        assert line["step"] == 0 or line["turns/mean"] > 1
    logs = [sorted((run / "log").glob("*.parquet")) for run in runs]
    assert [log.name for log in logs[0]] == [log.name for log in logs[1]]
    assert len(logs[0]) == 8 + 2 * 3
    for log, other in zip(*logs, strict=True):
        assert read_groups(log) == read_groups(other)
