"""Curriculum, adaptive sampling and a mixture in a real run: what is asked, what is measured, and an exact resume."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
import torch
from evenness import even
from safetensors.torch import load_file

from cohort.recipe import Recipe, to_toml
from cohort.record.metrics import is_timing, read_metrics
from cohort.record.rollouts import read_groups
from cohort.train import train
from cohort.views.console import Console
from forked import Cohort

STEPS = 10


@pytest.fixture(autouse=True)
def one_thread():
    yield
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def tmp_path(place):
    return place


@pytest.fixture
def tables(tmp_path, checkpoint_dir):
    """A mixture of everything: rows that rest, word problems with levels, a weight that changes on the way."""
    rows = tmp_path / "mine.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{i} + {i} =", "answer": str(2 * i)}) + "\n" for i in range(5)))
    return {
        "name": "mixed",
        "seed": 3,
        "policy": {"model": str(checkpoint_dir)},
        "task": {
            "template": "none",
            "mixture": {
                "rows": {"source": str(rows), "adaptive": {}, "weight": {"0": 1.0, "6": 3.0}},
                "words": {
                    "source": "word_problems",
                    "levels": [1, 2, 3],
                    "curriculum": {"window": 3, "raise_at": 0.5, "review": 0.25},
                },
            },
        },
        "rollout": {"prompts_per_step": 4, "group_size": 2, "max_tokens": 6, "max_staleness": 1},
        "reward": [{"use": even}],
        "objective": {"preset": "dr_grpo"},
        "optimizer": {"learning_rate": 1e-2},
        "evaluate": {"problems": 4},
        "run": {"steps": STEPS, "save_every": 3, "directory": str(tmp_path / "runs"), "threads": 1, "gate": "off"},
    }


def run(tables, name="mixed", resume=False):
    return train(Recipe(**{**tables, "name": name}), resume=resume, console=Console(quiet=True))


def same_run(a, b):
    """Weights, metrics but for timings, and every recorded rollout are equal, bit for bit."""
    ours, theirs = (load_file(run / "final/model.safetensors") for run in (a, b))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    lines = [read_metrics(run / "metrics.jsonl") for run in (a, b)]
    plain = [[{k: v for k, v in line.items() if not is_timing(k)} for line in side] for side in lines]
    assert plain[0] == plain[1]
    logs = [sorted((run / "log").glob("*.parquet")) for run in (a, b)]
    assert [file.name for file in logs[0]] == [file.name for file in logs[1]]
    assert all(read_groups(x) == read_groups(y) for x, y in zip(*logs, strict=True))


def test_what_a_run_asks_and_measures(tables, once):
    done = once("mixed", lambda: run(tables))
    lines = done.metrics[1:]
    groups = [
        group for step in range(1, STEPS + 1) for group in read_groups(done.directory / f"log/step-{step:06d}.parquet")
    ]
    assert len(groups) == 4 * STEPS
    levels = [int(line["domain/words/level"]) for line in lines]
    assert levels == sorted(levels)
    assert levels[-1] > 1
    assert max(line["domain/rows/resting"] for line in lines) > 0
    # A step uses groups that were asked for one step earlier (max_staleness = 1), so the new weight shows a step late.
    assert [line["domain/rows/share"] for line in lines] == [0.5] * 6 + [0.75] * 4
    for line in lines:
        assert sum(line[f"task/pass_rate_{bucket}"] for bucket in range(5)) == pytest.approx(1)
        shares = [value for key, value in line.items() if key.startswith("task/level/") and key.endswith("/share")]
        assert sum(shares) + line["domain/rows/share"] == pytest.approx(1)
        assert 0 <= line["domain/rows/pass_rate"] <= 1
    assert {group.prompt.tags["domain"] for group in groups} == {"rows", "words"}
    asked = [group.prompt.tags["level"] for group in groups if group.prompt.tags["domain"] == "words"]
    assert asked[0] == 1
    assert max(asked) > 1


@pytest.mark.parametrize("at", [9, 17, 26])
def test_a_crash_at_any_write_and_a_resume_ask_the_same_prompts(tables, once, monkeypatch, at):
    class Crash(BaseException):
        """Not an Exception, so that nothing handles it."""

    expected = once("expected", lambda: run(tables, "expected"))
    calls, fsync = 0, os.fsync

    def failing(handle):
        nonlocal calls
        calls += 1
        if calls == at:
            raise Crash
        fsync(handle)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(Crash):
        run(tables, "crashed")
    monkeypatch.setattr(os, "fsync", fsync)
    same_run(expected.directory, run(tables, "crashed", resume=True).directory)


@pytest.mark.slow
def test_killed_and_resumed(tables, once, tmp_path):
    expected = once("expected", lambda: run(tables, "expected"))
    (tmp_path / "evenness.py").write_text("def even(completion):\n    return float(len(completion) % 2 == 0)\n")
    (tmp_path / "recipe.toml").write_text(to_toml(Recipe(**{**tables, "reward": [{"use": "evenness:even"}]})))

    def start(*more):
        return Cohort("train", "recipe.toml", "name=killed", *more, cwd=tmp_path, log=tmp_path / "console.log")

    metrics, process = tmp_path / "runs/killed/metrics.jsonl", start()
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if metrics.exists() and len(metrics.read_bytes().splitlines()) > 6:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert start("--resume").wait(timeout=200) == 0, (tmp_path / "console.log").read_text()
    same_run(expected.directory, tmp_path / "runs/killed")


def test_the_state_is_in_the_checkpoint(tables, once):
    done = once("mixed", lambda: run(tables))
    saved = json.loads((done.directory / f"checkpoints/step-{STEPS:06d}/state.json").read_text())["ledger"]
    assert set(saved["sources"]) == {"rows", "words"}
    assert saved["sources"]["words"]["ladder"]["rung"] > 0
    assert len(saved["assigned"]) == 4  # sampled ahead
    assert saved["ledger"]["counts"] == {"trained": 4 * STEPS}
