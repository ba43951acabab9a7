"""Correcting for a sampler that is not quite the old policy: weights on the per-token loss.

The engine that sampled (mu) and the learner (pi_old) compute slightly different log-probs for the same weights, and
with stale weights quite different ones. The full ratio pi_theta / mu is the clip ratio pi_theta / pi_old times the
mismatch ratio w = pi_old / mu. The corrections here bound w and multiply it onto the already clipped surrogate; never
onto the KL.

Bounds always act on w = pi_old / mu. (verl's `*_k1` rejection acts on the inverse, whatever its documentation says:
with bounds 0.5..5 it keeps w = 0.449 and rejects 2.718.) Masked-out tokens get weight 0 and stay in the loss's
divisor, as in TRL, OpenRLHF and slime. Weights are detached: w does not depend on the policy being trained.

Token weights are biased but calm; sequence products are unbiased and their spread grows exponentially with length.

Bypass: to clip against the sampler itself (ratio pi_theta / mu, as in ScaleRL), pass the sampler's log-probs as
`old_logprobs` and use no correction; doing both would count the mismatch twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cohort.algorithms.fields import choices

if TYPE_CHECKING:
    from cohort.algorithms.terms import Filter

KINDS = tuple(kind for kind in choices("correction") if kind != "off")


@torch.no_grad()
def weight(
    kind: str,
    old_logprobs: Tensor,
    sampler_logprobs: Tensor,
    mask: Tensor,
    minimum: float | None = None,
    maximum: float | None = None,
) -> Tensor:
    """The mismatch weight [B, T], 1 outside the mask, with no gradient.

    token_truncate     w_t brought into [minimum, maximum] (TIS: maximum 2)
    token_mask         w_t if inside the bounds, else 0 (MIS, IcePop: 0.5..5)
    sequence_truncate  the product of the completion's w_t, brought into the bounds, on all of its tokens
    sequence_mask      that product if inside the bounds, else 0 (TRL's default: maximum 3)
    geometric_mask     w_t on every token, if the geometric mean of the completion's w_t is inside, else 0

    A bound that is None is not applied. All tensors are [B, T].
    """
    if kind not in KINDS:
        raise ValueError(f"correction={kind!r} is not a correction; choose one of {', '.join(KINDS)}")
    mask = mask.bool()
    log_ratio = (old_logprobs - sampler_logprobs).masked_fill(~mask, 0)  # [B, T]
    level, bound = kind.split("_")
    log_measure = log_ratio
    if level != "token":
        log_measure = log_ratio.sum(-1, keepdim=True).expand_as(log_ratio)
    if level == "geometric":
        log_measure = log_measure / mask.sum(-1, keepdim=True).clamp(min=1)
    measure = log_measure.exp()
    bounded = measure if minimum is None and maximum is None else measure.clamp(minimum, maximum)
    if bound == "mask":
        kept = log_ratio.exp() if level == "geometric" else measure
        bounded = torch.where(bounded == measure, kept, 0)
    return bounded.masked_fill(~mask, 1)


@torch.no_grad()
def filtered(terms: tuple[Filter, ...], old_logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Which tokens all filters leave in, [B, T] bool, true outside the mask.

    Each filter (measure, low, high) looks at all unmasked tokens, none at what another one has left out, so their order
    does not matter. All tensors are [B, T], of the whole optimizer batch: the second moment is one of all its tokens.
    """
    mask = mask.bool()
    log_ratio = (old_logprobs - sampler_logprobs).masked_fill(~mask, 0)
    found = torch.ones_like(mask)
    for measure, low, high in terms:
        low, high = -math.inf if low is None else low, math.inf if high is None else high
        found &= FILTERS[measure](log_ratio, mask, low, high)
    return found | ~mask


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    return x.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)


def _inside(x: Tensor, low: float, high: float) -> Tensor:
    return (x >= low) & (x <= high)


def _second_moment(log_ratio: Tensor, mask: Tensor, low: float, high: float) -> Tensor:
    """The largest squares are left out until the mean of the others is below `high`. The second-moment trust policy
    optimisation of 2510.01161, in AReaL's form: between sampler and old policy, whatever the sign of A.
    """
    squares = log_ratio.double().square()[mask]  # [N]
    sizes, order = squares.sort(stable=True)
    means = sizes.cumsum(0) / torch.arange(1, len(sizes) + 1, device=sizes.device)  # never falling
    left = torch.zeros_like(squares, dtype=torch.bool)
    left[order[: int((means < high).sum())]] = True
    return torch.zeros_like(mask).masked_scatter(mask, left)


# Filters: (log(old / sampler), mask, low, high) to what stays, broadcastable to [B, T].
FILTERS: dict[str, Callable[[Tensor, Tensor, float, float], Tensor]] = {
    "token": lambda log_ratio, mask, low, high: _inside(log_ratio.exp(), low, high),
    "sequence": lambda log_ratio, mask, low, high: _inside(log_ratio.sum(-1, keepdim=True).exp(), low, high),
    "geometric": lambda log_ratio, mask, low, high: _inside(_mean(log_ratio, mask).exp(), low, high),
    "outlier": lambda log_ratio, mask, low, high: _inside(log_ratio.exp(), low, high).all(-1, keepdim=True),
    "k3_mean": lambda log_ratio, mask, low, high: _mean(log_ratio.expm1() - log_ratio, mask) <= high,
    "second_moment": _second_moment,
}


@torch.no_grad()
def interpolated(logprobs: Tensor, sampler_logprobs: Tensor, versions: Tensor, current_version: int) -> Tensor:
    """log pi_old read off between sampler and policy: l_mu + a (l - l_mu), [B, T]. AReaL's `loglinear`.

    `versions` [B, T] are the weights that drew each token, v, and `current_version` the number v_now that the weights
    will have once this update is done, so that the old policy is v_now - 1: a = (v_now - 1 - v) / (v_now - v), between
    0 and 1, and 0 where v is v_now. A token of the newest weights has the sampler's log-prob, one of much older weights
    nearly the policy's own, so that a clip measures 1 / (v_now - v) of the drift.
    """
    age = (current_version - versions).to(logprobs.dtype)
    share = torch.where(age > 0, (age - 1) / age.clamp(min=1), 0).clamp(0, 1)
    return sampler_logprobs + share * (logprobs - sampler_logprobs)
