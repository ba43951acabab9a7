"""Arithmetic in bfloat16 with a reference: as exact as in float32.

Siblings that are tried: a fixed reference, one that is copied, one that is blended (EMA), a KL in the reward with a
critic (PPO); master weights in bfloat16; a model object from Python; an adapter.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from cohort.recipe import Recipe
from cohort.train import train
from cohort.train.grpo.learning import Learning
from cohort.views.console import Console

KINDS: dict[str, dict[str, Any]] = {
    "grpo": {"objective": {"preset": "grpo"}},
    "copied": {"objective": {"preset": "grpo"}, "reference": {"update_every": 2}},
    "ema": {"objective": {"preset": "grpo"}, "reference": {"ema": 0.5}},
    "ppo": {"objective": {"preset": "ppo"}},
    "masters": {"objective": {"preset": "grpo"}, "policy": {"dtype": "bfloat16"}},
    "adapter": {"objective": {"preset": "grpo"}, "policy": {"lora": {"rank": 2}}},
}


def constant(completion):
    return 1.0


@pytest.fixture
def in_bfloat16(tables, checkpoint_dir, tokenizer):
    del tables["evaluate"], tables["task"]["held_out"]
    tables["run"]["steps"] = 3

    def start(name, resume=False, live=False, **changes):
        made = {**tables, "name": name, "policy": {**tables["policy"], "compute": "bfloat16"}}
        for table, keys in changes.items():
            made[table] = {**made.get(table, {}), **keys} if isinstance(keys, dict) else keys
        model = None
        if live:
            made["policy"]["model"] = "live"
            model = AutoModelForCausalLM.from_pretrained(checkpoint_dir)
        more = {"model": model, "tokenizer": tokenizer} if live else {}
        return train(Recipe(**made), resume=resume, console=Console(quiet=True), **more)

    return start


def same(ours, theirs):
    file = "model.safetensors" if (ours / "model.safetensors").exists() else "adapter_model.safetensors"
    a, b = load_file(ours / file), load_file(theirs / file)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("kind", "live"), [*((kind, False) for kind in KINDS), ("ppo", True)])
def test_a_run_in_bfloat16_resumes_with_the_same_bits(kind, live, in_bfloat16, monkeypatch):
    whole = in_bfloat16("whole", live=live, **KINDS[kind])
    learn = Learning.learn

    def killed(self, groups, step):
        if step == 3:
            raise InterruptedError
        return learn(self, groups, step)

    with monkeypatch.context() as patch:
        patch.setattr(Learning, "learn", killed)
        with pytest.raises(InterruptedError):
            in_bfloat16("killed", live=live, **KINDS[kind])
    resumed = in_bfloat16("killed", resume=True, live=live, **KINDS[kind])
    assert same(whole.final, resumed.final)


@pytest.mark.parametrize("kind", ["grpo", "masters", "ppo"])
def test_a_constant_reward_moves_nothing_in_bfloat16(kind, in_bfloat16, checkpoint_dir):
    changes = {**KINDS[kind], "reward": [{"use": constant, "name": "one"}], "run": {"steps": 1, "gate": "off"}}
    first = in_bfloat16("constant", **changes).metrics[-1]
    assert first["policy/kl"] == 0
    if kind != "ppo":  # its critic gives advantages of its own
        assert first["grad_norm"] == first["loss"] == 0
