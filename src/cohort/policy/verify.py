"""The fused body proves itself against the model's own forward pass, or is not used."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cohort.policy.attention import PackedGroups

if TYPE_CHECKING:
    from cohort.policy.policy import Policy

__all__ = ["fall_back", "probe", "verify"]

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


def verify(policy: Policy, layout: PackedGroups) -> bool:
    """Compare the fused body with the plain one: the hidden states of `layout`, which is the first real batch, and all
    gradients of a small probe. Where they differ too much, warn and return False.
    """
    most_hidden, most_gradient = TOLERANCE[policy.compute]
    with torch.no_grad():
        apart = _apart(*(run(policy, layout) for run in (_fused, _plain)))
    if not apart <= most_hidden:
        return fall_back(policy, f"hidden states of the first batch differ by {apart:.2g} of the largest")
    small, _ = probe(policy.vocabulary, policy.max_context, policy.device)
    weights = [p for p in policy.model.parameters() if p.requires_grad]
    if not weights:
        return True
    gradients = []
    for run in (_fused, _plain):
        with torch.enable_grad():
            hidden = run(policy, small)
            direction = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))
            gradients.append(torch.autograd.grad((hidden * direction).sum(), weights, allow_unused=True))
    for fused, plain in zip(*gradients, strict=True):
        if (fused is None) != (plain is None):
            return fall_back(policy, "a weight has a gradient on one side only")
        if (
            fused is not None
            and not (apart := ((fused - plain).norm() / (plain.norm() + 1e-12)).item()) <= most_gradient
        ):
            return fall_back(policy, f"gradients differ by {apart:.2g} of their norm")
    return True


def fall_back(policy: Policy, reason: str) -> bool:
    """Leave the fused path for good, and say so. Returns False."""
    policy.fused, policy.plain_because = None, reason
    warnings.warn(
        f"the compiled kernels do not agree with {type(policy.model).__name__}'s own forward pass ({reason}), so the "
        "plain path is used from here on: right, but slower",
        stacklevel=3,
    )
    return False


def _fused(policy: Policy, layout: PackedGroups) -> Tensor:
    assert policy.fused is not None
    return policy.fused.hidden(layout.tokens, layout.positions, layout)


def _plain(policy: Policy, layout: PackedGroups) -> Tensor:
    return policy.plain_hidden(layout.tokens, layout.positions, layout)


def _apart(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / (b.abs().max() + 1e-12)).item()
