"""Aggregation as a weight: how much each token counts in the loss, which is always `(per_token * token_weight).sum()`.

A weight is computed once, from the whole optimizer batch over all ranks, before any split into micro-batches. Then the
gradient cannot depend on micro-batching, packing, padding or the number of ranks.

Every function takes `mask` [B, T], true (or 1) where the policy chose the token, and returns a float64 weight [B, T]
that is 0 outside the mask.

**Fully masked rows** (a truncated completion whose loss is masked) have weight 0 but stay in B, P and B * max_tokens:
masking one completion does not make the others count more. TRL does the same; verl's `seq-mean-*` divides by the rows
that remain. In `token_mean` the divisor is the number of unmasked tokens, so there masking does shrink it, in TRL and
verl alike. To leave such rows out altogether, drop them from the batch before computing the weight.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def token_mean(mask: Tensor) -> Tensor:
    """1/N, N = all unmasked tokens of the batch. DAPO as implemented (verl `token-mean`, TRL `dapo`)."""
    weight = _as_weight(mask)
    return weight / weight.sum().clamp(min=1)


def prompt_token_mean(mask: Tensor, group: Tensor | None) -> Tensor:
    """1/(P * N_p): a mean over each prompt's tokens, then over prompts. DAPO eq. 8, CISPO eq. 4 as printed; ScaleRL.

    `group` [B] holds each row's prompt index (any integers); P is the number of different ones.
    """
    weight = _as_weight(mask)
    if group is None:
        raise ValueError("aggregation='prompt_token_mean' needs group: the prompt index of each row, [B]")
    if group.shape != mask.shape[:1]:
        raise ValueError(f"group has shape {tuple(group.shape)}; give one prompt index per row, [{mask.shape[0]}]")
    prompts, prompt_of_row = torch.unique(group, return_inverse=True)
    tokens_of_row = weight.sum(-1)  # [B]
    tokens_of_prompt = tokens_of_row.new_zeros(len(prompts)).index_add(0, prompt_of_row, tokens_of_row)  # [P]
    divisor = len(prompts) * tokens_of_prompt.clamp(min=1)[prompt_of_row]  # [B]
    return weight / divisor[:, None]


def sequence_mean(mask: Tensor) -> Tensor:
    """1/(B * L_i): a mean over each completion's tokens, then over completions. GRPO (DeepSeekMath eq. 3)."""
    weight = _as_weight(mask)
    lengths = weight.sum(-1, keepdim=True).clamp(min=1)  # [B, 1]
    return weight / (mask.shape[0] * lengths)


def sequence_sum(mask: Tensor) -> Tensor:
    """1/B: completions averaged, their tokens summed. RLOO (a completion is one action); Dr. GRPO as printed."""
    return _as_weight(mask) / mask.shape[0]


def sequence_token_sum(mask: Tensor) -> Tensor:
    """L_i/(B * L_i): each completion's mean, multiplied by its length. LUSPO (2602.05261).

    The length cancels, so the number is `sequence_sum`'s. The two names say what is meant: LUSPO starts from one
    sequence-level surrogate per completion and counts it once for each of its tokens.
    """
    return sequence_sum(mask)


def constant_length(mask: Tensor, max_tokens: int | None) -> Tensor:
    """1/(B * max_tokens): a constant, blind to the lengths that occurred. Dr. GRPO as implemented (TRL, oat).

    `max_tokens` is the generation budget, never the padded width of this batch: that would vary from step to step.
    """
    if max_tokens is None:
        raise ValueError("aggregation='constant_length' needs max_tokens: the longest completion that may be sampled")
    if max_tokens <= 0:
        raise ValueError(f"max_tokens={max_tokens} must be positive; give the longest completion that may be sampled")
    return _as_weight(mask) / (mask.shape[0] * max_tokens)


# What the loss calls: (mask [B, T], group [B] or None, max_tokens or None) to the weight [B, T].
AGGREGATIONS: dict[str, Callable[[Tensor, Tensor | None, int | None], Tensor]] = {
    "token_mean": lambda mask, group, max_tokens: token_mean(mask),
    "prompt_token_mean": lambda mask, group, max_tokens: prompt_token_mean(mask, group),
    "sequence_mean": lambda mask, group, max_tokens: sequence_mean(mask),
    "sequence_sum": lambda mask, group, max_tokens: sequence_sum(mask),
    "sequence_token_sum": lambda mask, group, max_tokens: sequence_token_sum(mask),
    "constant_length": lambda mask, group, max_tokens: constant_length(mask, max_tokens),
}


def _as_weight(mask: Tensor) -> Tensor:
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {tuple(mask.shape)}; it must be [B, T]")
    return mask.bool().to(torch.float64)
