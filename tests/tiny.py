"""Tiny random models of several architectures."""

from __future__ import annotations

from typing import Any

import pytest
import torch

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


def on_path(policy, path: str):
    """The policy on its compiled path, or on PyTorch alone."""
    if path == "fused" and policy.fused is None:
        pytest.skip(policy.plain_because)
    if path == "plain":
        policy.fused = None
    return policy


def make_tiny(kind: str, tokenizer) -> torch.nn.Module:
    """A random model of an architecture, its weights large enough that log-probs are far from uniform."""
    import transformers as t

    common: dict[str, Any] = dict(SIZES, vocab_size=len(tokenizer), eos_token_id=1, pad_token_id=0, bos_token_id=None)
    torch.manual_seed(7)
    if kind == "qwen3":
        model = t.Qwen3ForCausalLM(t.Qwen3Config(**common, head_dim=8))
    elif kind == "qwen2":
        model = t.Qwen2ForCausalLM(t.Qwen2Config(**common))
    elif kind == "qwen3-window":  # heads of 24, alternate layers that see 8 positions back, a tied head
        config = t.Qwen3Config(
            **common, head_dim=24, use_sliding_window=True, sliding_window=8, tie_word_embeddings=True,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        )  # fmt: skip
        model = t.Qwen3ForCausalLM(config)
    elif kind == "mistral":
        model = t.MistralForCausalLM(t.MistralConfig(**common, head_dim=16, sliding_window=8))
    elif kind == "llama-bias":
        model = t.LlamaForCausalLM(t.LlamaConfig(**common, attention_bias=True, mlp_bias=True))
    elif kind == "llama":
        model = t.LlamaForCausalLM(t.LlamaConfig(**common))
    elif kind == "gemma3":  # every other kind of layer sees 8 positions back, fewer than prompts and completions have
        config = t.Gemma3TextConfig(
            **common, head_dim=8, sliding_window=8, query_pre_attn_scalar=8,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        )  # fmt: skip
        model = t.Gemma3ForCausalLM(config)  # type: ignore[arg-type]
    else:
        raise ValueError(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.1)
            else:  # norms and biases that are not 1 and 0 everywhere
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.float().eval()
