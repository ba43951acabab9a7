"""Weights that diverged are never a checkpoint, and never a final model.

Siblings that are tried: a rate at which weights overflow, and one at which they stay finite and the log-probs do not;
one step and several; supervised stages; an adapter; an optimizer whose averages overflow.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cohort.learn.optimizer import open_optimizer, save_optimizer
from cohort.settings import Optimizer
from cohort.train.grpo import learning
from cohort.types import UserError
from cohort.views.console import Console

CHANGES: dict[str, dict[str, Any]] = {
    "one step": {"run": {"steps": 1}},
    "finite weights": {"run": {"steps": 1}, "optimizer": {"learning_rate": 1e17}},
    "finite log-probs": {"run": {"steps": 1}, "optimizer": {"learning_rate": 1e25}},
    "several steps": {"run": {"steps": 3, "save_every": 1}},
    "adapter": {"run": {"steps": 1}, "policy": {"lora": {"rank": 2}}},
}


@pytest.fixture(autouse=True)
def nothing_held_out(tables):
    """So that no evaluation finds out first."""
    del tables["task"]["held_out"], tables["evaluate"]


@pytest.mark.fault("weights that diverge", "they are never saved; the last good checkpoint is named", "steps since it")
@pytest.mark.parametrize("case", CHANGES)
def test_a_run_that_diverged_leaves_no_final_model(case, run, tmp_path):
    changes: dict[str, Any] = {"optimizer": {"learning_rate": 1e38}} | CHANGES[case]
    with pytest.raises(UserError, match="not finite"):
        run(**changes)
    assert not list((tmp_path / "runs").rglob("*.safetensors"))


def test_a_supervised_run_that_diverged_leaves_no_final_model(run, tables, tmp_path):
    del tables["reward"], tables["objective"], tables["rollout"]
    tables["task"]["completion"] = tables["task"].pop("answer")
    with pytest.raises(UserError, match="not finite"):
        run(kind="sft", optimizer={"learning_rate": 1e38}, supervised={"examples_per_step": 4},
            run={"steps": 1, "show_group_every": 0})  # fmt: skip
    assert not list((tmp_path / "runs").rglob("*.safetensors"))


def test_the_last_good_checkpoint_stays_and_is_named(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(learning, "rate_at", lambda table, steps, step: 1e38 if step == 4 else 1e-3)
    with pytest.raises(UserError, match="not finite"):
        run(console=Console())
    assert "saved up to step 2" in capsys.readouterr().out
    assert not (tmp_path / "runs" / "small" / "final").exists()
    assert [path.name for path in (tmp_path / "runs").rglob("step-*") if path.is_dir()] == ["step-000002"]


def test_averages_that_overflowed_are_not_saved(tiny_policy, tmp_path):
    optimizer = open_optimizer(Optimizer(), tiny_policy.module)
    for parameter in tiny_policy.module.parameters():
        parameter.grad = torch.full_like(parameter, 1e30)
    optimizer.step()
    with pytest.raises(UserError, match="averages are not finite"):
        save_optimizer(optimizer, tmp_path)
