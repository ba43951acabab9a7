"""The fused body proves itself against the model's own forward pass, or is not used."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cohort.policy.attention import PackedGroups

Body = Callable[[Tensor, Tensor, PackedGroups], Tensor]  # tokens and positions [1, N] -> hidden states [N, hidden]

# What may differ, relative to the largest hidden state and to the norm of each gradient. Rounding in float32 is 1e-6.
TOLERANCE = {torch.float32: (1e-4, 1e-3), torch.bfloat16: (0.1, 0.3)}


def probe(vocabulary: int, max_context: int | None, device: torch.device | str) -> tuple[PackedGroups, list[list[int]]]:
    """Two random prompts and four rollouts in one row, longer than a small sliding window, and the rollouts' texts."""
    draw = torch.Generator().manual_seed(0)
    longest = min(40, (max_context or 64) // 2)

    def tokens(count: int) -> list[int]:
        return torch.randint(0, vocabulary, (count,), generator=draw).tolist()

    prompts = [tokens(n) for n in (longest // 2, 5)]
    rollouts = [tokens(n) for n in (longest // 2, 3, 7, 4)]
    group = [0, 0, 1, 1]
    whole = [[*prompts[g], *rollout] for rollout, g in zip(rollouts, group, strict=True)]
    return PackedGroups(prompts, rollouts, group, device), whole


def verify(
    fused: Body,
    plain: Body,
    weights: Sequence[Tensor],
    batch: PackedGroups,
    small: PackedGroups,
    compute: torch.dtype,
) -> str | None:
    """Compare two bodies: the hidden states of `batch`, and on the probe `small` the gradients of the trainable
    `weights`. Returns in what they differ too much, or None where they agree.
    """
    most_hidden, most_gradient = TOLERANCE[compute]
    with torch.no_grad():
        ours, theirs = (body(batch.tokens, batch.positions, batch) for body in (fused, plain))
        apart = ((ours - theirs).abs().max() / (theirs.abs().max() + 1e-12)).item()
    if not apart <= most_hidden:
        return f"hidden states of the first batch differ by {apart:.2g} of the largest"
    if not weights:
        return None
    for ours, theirs in zip(*(_gradients(body, weights, small) for body in (fused, plain)), strict=True):
        if (ours is None) != (theirs is None):
            return "a weight has a gradient on one side only"
        if ours is None or theirs is None:
            continue
        apart = ((ours - theirs).norm() / (theirs.norm() + 1e-12)).item()
        if not apart <= most_gradient:
            return f"gradients differ by {apart:.2g} of their norm"
    return None


@torch.enable_grad()
def _gradients(body: Body, weights: Sequence[Tensor], layout: PackedGroups) -> tuple[Tensor | None, ...]:
    """The gradients of the hidden states' sum in a fixed random direction."""
    hidden = body(layout.tokens, layout.positions, layout)
    direction = torch.randn(hidden.shape, dtype=torch.float32, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((hidden * direction).sum(), weights, allow_unused=True)
