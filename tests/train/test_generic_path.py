"""A run of a model that packed groups are wrong for: what is said, an exact resume, an adapter, a full KL."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cohort.record.metrics import is_timing

pytestmark = pytest.mark.filterwarnings("ignore:.*takes the generic path")


@pytest.fixture
def convolutions(tmp_path, tokenizer):
    """A checkpoint of a model with convolutions and attention."""
    import transformers as t

    torch.manual_seed(5)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    layers = ["conv", "full_attention", "conv"]
    config = t.Lfm2Config(vocab_size=len(tokenizer), num_hidden_layers=3, layer_types=layers, **sizes)
    t.Lfm2ForCausalLM(config).float().save_pretrained(tmp_path / "conv")
    tokenizer.save_pretrained(tmp_path / "conv")
    return tmp_path / "conv"


def weights(run):
    final = run.directory / "final"
    return load_file(next(final.glob("*model.safetensors")))


def numbers(run):
    return [{key: value for key, value in line.items() if not is_timing(key)} for line in run.metrics]


@pytest.mark.parametrize("policy", [{}, {"lora": {"rank": 2}}], ids=["full", "lora"])
def test_a_run_learns_and_resumes_exactly(run, convolutions, policy, tmp_path):
    changes: dict[str, Any] = {
        "policy": {"model": str(convolutions), **policy},
        "objective": {"preset": "grpo", "kl_coef": 0.05},
        "optimizer": {"tokens_per_micro_batch": 64, "updates_per_batch": 2},
    }
    whole = run(**changes, name="whole")
    run(**changes, name="part", run={"steps": 2})
    resumed = run(**changes, name="part", resume=True)
    assert numbers(resumed)[-2:] == numbers(whole)[-2:]  # the steps after the resume
    ours, theirs = weights(resumed), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    steps = [line for line in whole.metrics if "grad_norm" in line]
    assert any(line["grad_norm"] for line in steps)
    assert all(line["policy/mismatch"] < 0.01 for line in steps if line["policy/mismatch"] is not None)
