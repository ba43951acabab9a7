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

import torch
from torch import Tensor

from cohort.algorithms.fields import choices

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
