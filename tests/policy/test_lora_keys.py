"""Every key of [policy.lora] does what it says, and the reference is what the stage starts from, bit for bit."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cohort.algorithms import objectives
from cohort.learn.learner import Learner
from cohort.learn.reference import Reference
from cohort.policy.adapters import add_lora, merge_adapter
from cohort.policy.load import load_policy, save_policy
from cohort.policy.scratch import make_model
from cohort.settings import Lora, Optimizer, Scratch
from cohort.train.sft import supervised_batch
from cohort.types import UserError

BATCH = [([20, 21, 22], [30, 31, 32, 33], [True] * 4), ([23, 24], [34, 35], [True] * 2)]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "layers": {"layers": (1,)},
    "head": {"modules_to_save": ("lm_head",)},
    "norm": {"targets": ("q_proj",), "modules_to_save": ("norm",)},
    "all": {"rslora": True, "dora": True, "layers": (0,), "modules_to_save": ("embed_tokens", "lm_head")},
}


def adapted(checkpoint_dir, **keys):
    return add_lora(load_policy(str(checkpoint_dir)), Lora(rank=4, **keys), seed=5)


def train(policy, steps=2):
    learner = Learner(policy, objectives.preset("dr_grpo"), Optimizer(), reference=Reference(policy))
    for _ in range(steps):
        learner.update(supervised_batch(BATCH), 1e-2)
    return learner


def trained(policy):
    return {name for name, p in policy.module.named_parameters() if p.requires_grad}


def scale(policy):
    return next(m.scaling["default"] for m in policy.module.modules() if hasattr(m, "lora_A"))


def test_each_key_shows_in_what_is_trained(checkpoint_dir):
    plain = adapted(checkpoint_dir)
    assert scale(plain) == 32 / 4
    assert scale(adapted(checkpoint_dir, rslora=True)) == 32 / 2
    assert any("magnitude" in name for name in trained(adapted(checkpoint_dir, dora=True)))
    chosen = trained(adapted(checkpoint_dir, layers=(1,)))
    assert chosen == {name for name in trained(plain) if ".layers.1." in name}
    whole = trained(adapted(checkpoint_dir, modules_to_save=("lm_head",)))
    assert {name for name in whole if "lora_" not in name} == {
        "base_model.model.lm_head.modules_to_save.default.weight"
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_the_start_bit_for_bit(kind, checkpoint_dir, tmp_path):
    policy, batch = adapted(checkpoint_dir, **KINDS[kind]), supervised_batch(BATCH)
    learner = Learner(policy, objectives.preset("grpo"), Optimizer(), reference=Reference(policy))
    start = learner.logprobs(batch)
    assert torch.equal(learner.reference_logprobs(batch), start)
    train(policy)
    assert not torch.equal(learner.logprobs(batch), start)
    assert torch.equal(learner.reference_logprobs(batch), start)
    # Continued from disk, the reference is the adapter as it was.
    save_policy(policy, tmp_path / "first")
    again = add_lora(load_policy(str(tmp_path / "first")), Lora(rank=4, **KINDS[kind]), seed=9)
    learner = Learner(again, objectives.preset("grpo"), Optimizer(), reference=Reference(again, fresh_adapter=False))
    start = learner.logprobs(batch)
    train(again)
    assert torch.equal(learner.reference_logprobs(batch), start)


@pytest.mark.parametrize("kind", ["plain", "dora", "head"])
def test_a_merged_adapter_says_what_it_said(kind, checkpoint_dir):
    policy, batch = adapted(checkpoint_dir, **KINDS[kind]), supervised_batch(BATCH)
    wanted = train(policy).logprobs(batch)
    merged = merge_adapter(policy)
    found = Learner(merged, objectives.preset("dr_grpo"), Optimizer()).logprobs(batch)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


NAMELESS: dict[str, tuple[dict[str, Any], str]] = {
    "a target": ({"targets": ("q_proj", "typo")}, "targets names 'typo', and the model has no such module"),
    "a saved module": ({"modules_to_save": ("head",)}, "modules_to_save names 'head'"),
    "a layer": ({"layers": (0, 7)}, "names layer 7, and the model has 2"),
    "an embedding in a layer": ({"targets": ("q_proj", "embed_tokens"), "layers": (0,)}, "in policy.lora.layers"),
    "both": ({"targets": ("lm_head",), "modules_to_save": ("lm_head",)}, "in targets and in modules_to_save"),
}


@pytest.mark.parametrize("case", NAMELESS)
def test_a_name_that_nothing_answers_to_is_refused(case, checkpoint_dir):
    keys, says = NAMELESS[case]
    with pytest.raises(UserError, match=says):
        adapted(checkpoint_dir, **keys)


def test_an_adapter_of_another_base_is_refused(checkpoint_dir, tmp_path):
    policy = adapted(checkpoint_dir)
    save_policy(policy, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(checkpoint_dir)
    load_policy(str(tmp_path / "adapter"), dtype="bfloat16")
    weights = checkpoint_dir / "model.safetensors"
    save_file({k: v * 1.01 for k, v in load_file(weights).items()}, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match="was trained on another model than"):
        load_policy(str(tmp_path / "adapter"))
    (tmp_path / "adapter" / "base.json").write_text("{")
    with pytest.raises(UserError, match=r"base\.json is damaged"):
        load_policy(str(tmp_path / "adapter"))


def test_a_base_of_another_shape_is_one_sentence(checkpoint_dir, tmp_path, tokenizer):
    wider = Scratch(hidden_size=48, layers=2, heads=2, kv_heads=1, head_dim=16, intermediate_size=64)
    save_policy(adapted(checkpoint_dir), tmp_path / "adapter")
    (tmp_path / "adapter" / "base.json").unlink()
    make_model(tokenizer, 3, wider).save_pretrained(checkpoint_dir)
    with pytest.raises(UserError, match="does not fit its base"):
        load_policy(str(tmp_path / "adapter"))
