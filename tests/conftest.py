"""Tiny models and tokenizers, made here: nothing is downloaded."""

from __future__ import annotations

import copy
import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from transformers.utils import logging

from cohort.policy.policy import Policy
from cohort.policy.scratch import make_model, make_tokenizer
from cohort.tasks.word_problems import demonstrations

torch.set_num_threads(1)
logging.set_verbosity_error()
logging.disable_progress_bar()

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
ARCHITECTURES = ("qwen3", "qwen2", "llama", "gemma3")


@pytest.fixture(scope="session")
def tokenizer():
    made = demonstrations(levels=(1, 2), seed=0, careful=0.5)
    return make_tokenizer([f"{made[i].prompt.text} {made[i].completion}" for i in range(300)], 400)


def make_tiny(kind: str, tokenizer) -> torch.nn.Module:
    """A random model of an architecture, its weights large enough that log-probs are far from uniform."""
    import transformers as t

    common = dict(SIZES, vocab_size=len(tokenizer), eos_token_id=1, pad_token_id=0, bos_token_id=None)
    torch.manual_seed(7)
    if kind == "qwen3":
        model = t.Qwen3ForCausalLM(t.Qwen3Config(**common, head_dim=8))
    elif kind == "qwen2":
        model = t.Qwen2ForCausalLM(t.Qwen2Config(**common))
    elif kind == "llama":
        model = t.LlamaForCausalLM(t.LlamaConfig(**common))
    elif kind == "gemma3":  # every other kind of layer sees 8 positions back, fewer than prompts and completions have
        config = t.Gemma3TextConfig(
            **common, head_dim=8, sliding_window=8, query_pre_attn_scalar=8,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        )  # fmt: skip
        model = t.Gemma3ForCausalLM(config)
    else:
        raise ValueError(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.1)
    return model.float().eval()


@pytest.fixture(params=ARCHITECTURES)
def policy_and_plain(request, tokenizer):
    """A policy, and an untouched copy of its model that computes attention its own way."""
    model = make_tiny(request.param, tokenizer)
    plain = copy.deepcopy(model)
    plain.set_attn_implementation("eager")
    return Policy(model, tokenizer), plain


@pytest.fixture
def tiny_policy(tokenizer):
    return Policy(make_tiny("qwen3", tokenizer), tokenizer)


@pytest.fixture
def small_model(tokenizer):
    return make_model(
        tokenizer, seed=3, hidden_size=32, layers=2, heads=2, kv_heads=1, head_dim=16, intermediate_size=64
    )


@pytest.fixture
def checkpoint_dir(tmp_path, tokenizer, small_model):
    """A checkpoint as a user would have one."""
    where = tmp_path / "base"
    small_model.save_pretrained(where)
    tokenizer.save_pretrained(where)
    return where
