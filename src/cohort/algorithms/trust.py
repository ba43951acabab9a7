"""Detached factors of the policy term, row by row: masks of tokens and completions that have moved too far.

They take the place of a clip, or stand beside a weight: a token that a mask takes loses its gradient, and stays in the
divisor. All of them look at the policy as it is, so they are computed anew in every update.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from cohort.algorithms.losses import Tokens
    from cohort.algorithms.objective import Objective


@torch.no_grad()
def kept(o: Objective, x: Tokens) -> Tensor | None:
    """Which tokens stay in the policy term, [B, T] bool; None where the objective has no such mask."""
    found = None
    if o.mask != "off":
        found = ~_moved(o, x)
    if o.off_policy_delta is not None:
        fallen = (x.behaviour - x.logprobs).masked_fill(~x.mask, 0).sum(-1, keepdim=True)  # [B, 1] nats
        fallen = fallen / x.mask.sum(-1, keepdim=True).clamp(min=1)
        near = ~((x.advantages < 0) & (fallen > o.off_policy_delta))
        found = near if found is None else found & near
    return found


def _moved(o: Objective, x: Tokens) -> Tensor:
    """A > 0 and the measure past `mask_high`, or A < 0 and past `mask_low`; both ways for `probability_both`."""
    up, down = MEASURES[o.mask](o, x)
    high, low = (math.inf if bound is None else bound for bound in (o.mask_high, o.mask_low))
    risen, fallen = up > high, down > low
    if o.mask == "probability_both":
        return risen | fallen
    return (x.advantages > 0) & risen | (x.advantages < 0) & fallen


def _ratio(o: Objective, x: Tokens) -> tuple[Tensor, Tensor]:
    ratio = x.ratio(o)
    return ratio - 1, 1 - ratio


def _probability(o: Objective, x: Tokens) -> tuple[Tensor, Tensor]:
    rise = x.logprobs.exp() - x.old_logprobs.exp()
    return rise, -rise


def _bernoulli_kl(o: Objective, x: Tokens) -> tuple[Tensor, Tensor]:
    """KL of (p_old, 1 - p_old) against (p, 1 - p): of the token against all others. Negative where it moved the other
    way.
    """
    p, old = (logs.clamp(max=0).exp() for logs in (x.logprobs, x.old_logprobs))
    others = torch.special.xlog1py(1 - old, -old) - torch.special.xlog1py(1 - old, -p)
    size = old * (x.old_logprobs.clamp(max=0) - x.logprobs.clamp(max=0)) + others
    up = x.logprobs > x.old_logprobs
    return torch.where(up, size, -1.0), torch.where(up, -1.0, size)


@torch.no_grad()
def future(o: Objective, x: Tokens) -> Tensor | None:
    """How much each token counts by how its own future has moved, [B, T]; None where the objective does not ask. FIPO.

    clip(exp(F_t), low, high), F_t = sum_{k >= t} 2^(-(k - t) / half-life) d_k over the completion's own tokens, d = log
    (policy / old policy). Where A < 0 and the ratio is above the limit it is held between 2 - high and 1. A token whose
    ratio is beyond `ratio_max` adds nothing to F. (2603.19835; ms-swift.)
    """
    if o.future_kl_half_life is None:
        return None
    moved = (x.logprobs - x.old_logprobs).masked_fill(~x.mask, 0)
    ratio = moved.exp()
    if o.ratio_max is not None:
        moved = moved.masked_fill(ratio > o.ratio_max, 0)
    sums = later_sums(moved, x.mask, 2 ** (-1 / o.future_kl_half_life))
    weight = sums.exp().clamp(o.future_kl_low, o.future_kl_high)
    unsafe = (x.advantages < 0) & (ratio > o.future_kl_ratio_limit)
    return torch.where(unsafe, weight.clamp(2 - o.future_kl_high, 1), weight)


def later_sums(x: Tensor, mask: Tensor, discount: float) -> Tensor:
    """sum_{k >= t} discount^(k - t) x_k over the unmasked tokens alone, [B, T]; 0 outside the mask."""
    ahead, sums = x.new_zeros(len(x)), []
    for column, chosen in zip(reversed(x.unbind(1)), reversed(mask.unbind(1)), strict=True):
        ahead = torch.where(chosen, column + discount * ahead, ahead)
        sums.append(ahead)
    return torch.stack(sums[::-1], 1).masked_fill(~mask, 0) if sums else x


# Measures of how far tokens have moved: (objective, tokens) to how far up and how far down, [B, T] each.
MEASURES: dict[str, Callable[[Objective, Tokens], tuple[Tensor, Tensor]]] = {
    "ratio": _ratio,
    "probability": _probability,
    "bernoulli_kl": _bernoulli_kl,
    "probability_both": _probability,
}
