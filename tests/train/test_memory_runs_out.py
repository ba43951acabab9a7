"""A run whose memory runs out in the middle: it goes on with less at once, says so, and resumes with the same bits."""

from __future__ import annotations

import io
import os
import signal
import time
from dataclasses import replace
from unittest.mock import ANY

import numpy as np
import orjson
import pytest
import torch
from safetensors.torch import load_file

from cohort.engine.engine import Engine
from cohort.learn.learner import Learner
from cohort.preflight import rehearsal
from cohort.preflight.rehearsal import rehearse
from cohort.train.grpo import training
from cohort.types import UserError
from cohort.views.console import Console


@pytest.mark.fault(
    "memory that runs out in the learner, or in the engine", "half as much at once, and the same gradient"
)
def test_a_run_goes_on_with_half_of_it_also_when_it_is_resumed(run, monkeypatch):
    gradients, append, short = Learner._gradients, Engine._append, {"tokens": 2048, "rows": 8}

    def learns(self, batch, tokens):
        found = gradients(self, batch, tokens)
        if tokens > short["tokens"]:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
        return found

    def draws(self, running, first, logits):
        if running.n > short["rows"]:
            raise MemoryError
        return append(self, running, first, logits)

    monkeypatch.setattr(Learner, "_gradients", learns)
    monkeypatch.setattr(Engine, "_append", draws)
    with (
        pytest.warns(UserWarning, match="2,048 tokens are computed at once and not 4,096"),
        pytest.warns(UserWarning, match="6 completions are decoded at once"),
    ):
        whole = run(name="whole")
    assert [line.get("memory/tokens_at_once") for line in whole.metrics] == [None, *[2048.0] * 4]
    assert orjson.loads((whole.directory / "checkpoints/step-000002/memory.json").read_bytes()) == {
        "tokens": 2048,
        "rows": 6,
    }
    with pytest.warns(UserWarning, match="memory ran out"):
        run(run={"steps": 2})
    short |= {"tokens": 10**6, "rows": 10**6}  # there is enough of it now
    resumed = run(resume=True)
    weights = [load_file(done.final / "model.safetensors") for done in (whole, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert resumed.metrics[-1]["memory/tokens_at_once"] == 2048


def test_a_run_whose_memory_never_runs_out_says_nothing_of_it(run):
    done = run(run={"steps": 1})
    assert not list(done.directory.glob("checkpoints/*/memory.json"))
    assert "memory/tokens_at_once" not in done.metrics[-1]


def test_a_step_that_does_not_fit_is_known_before_the_first(run, tmp_path, monkeypatch):
    """Half of what there is is needed, as far as can be reckoned: so the worst step is done once, in a copy."""
    text = io.StringIO()
    usual = run(name="usual")
    rehearsed = run(name="far", policy={"memory_gb": 1e3}, console=Console(file=text, width=1000))
    assert "rehearsed" not in text.getvalue()
    monkeypatch.setattr(training, "free_gb", lambda: 1.1)
    monkeypatch.setattr(rehearsal, "_peak_gb", lambda _: 0.9)
    rehearsed = run(name="near", console=Console(file=text, width=1000))
    assert "the worst step was rehearsed: 0.9 GB at the peak" in text.getvalue()
    weights = [load_file(done.final / "model.safetensors") for done in (usual, rehearsed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert [line.get("loss") for line in usual.metrics] == [line.get("loss") for line in rehearsed.metrics]
    monkeypatch.setattr(rehearsal, "_peak_gb", lambda _: 1.3)
    with pytest.raises(UserError, match=r"'grpo' does not fit: its worst step .* took more than 1\.3 GB"):
        run(name="over")
    assert not (tmp_path / "runs/over/metrics.jsonl").exists()


def test_a_copy_that_the_system_ends_or_that_fails_is_told_apart():
    def killed():
        os.kill(os.getpid(), signal.SIGKILL)

    def fails():
        raise ValueError("no such layer")

    held = []
    assert rehearse(lambda: held.append(1), 1e3) == replace(rehearse(lambda: None, 1e3), gb=ANY)
    assert not held  # it was the copy's
    assert not rehearse(killed, 1e3).fits
    assert rehearse(fails, 1e3).error == "ValueError: no such layer"
    grown = rehearse(lambda: time.sleep(60) if np.ones(10**8).any() else None, rehearse(lambda: None, 1e3).gb + 0.3)
    assert not grown.fits
