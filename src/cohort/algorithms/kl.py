"""Per-token estimators of KL(policy || reference), and the two ways to differentiate them.

All of them look at u = logprobs - ref_logprobs of tokens the policy sampled (Schulman, "Approximating KL divergence"):

    k1 = u                   unbiased, may be negative, high variance
    k2 = u^2 / 2             biased, never negative, low variance
    k3 = exp(-u) - 1 + u     unbiased, never negative, low variance (DeepSeekMath eq. 4)

An unbiased value does not make an unbiased gradient. With the samples held fixed, the pathwise gradient of k1 is zero
in expectation, that of k2 is the gradient of KL(policy || reference), and that of k3 is the gradient of the *other*
KL, KL(reference || policy). Multiplied by the ratio policy / old policy ("weighted"), k3 has the gradient of
KL(policy || reference), and stays unbiased in value after the policy has moved off the one that sampled.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cohort.algorithms.fields import nearest


def estimate(logprobs: Tensor, ref_logprobs: Tensor, estimator: str = "k3") -> Tensor:
    """The estimator of KL(policy || reference), token by token, in nats; differentiable ("pathwise").

    Both inputs have the same shape, any shape, and so has the result. `estimator` is "k1", "k2" or "k3".

    Raises ValueError for another estimator.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator={estimator!r} is not a KL estimator{nearest(estimator, ESTIMATORS)}")
    return ESTIMATORS[estimator](logprobs - ref_logprobs)


ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "k1": lambda u: u,
    "k2": lambda u: u.square() / 2,
    # exp(-u) - 1 would lose every digit of a small u: in float32, u = 1e-4 gives 0 instead of 5e-9.
    "k3": lambda u: torch.expm1(-u) + u,
}


def weighted(logprobs: Tensor, ref_logprobs: Tensor, old_logprobs: Tensor, estimator: str = "k3") -> Tensor:
    """The estimator times the token ratio policy / old policy, gradient through both.

    DeepSeek-V3.2's "unbiased KL"; TRL's `use_bias_correction_kl`. With k3 or k1, where the policy has not moved
    (ratio 1), its expected gradient is that of KL(policy || reference). Shapes as in `estimate`.
    """
    ratio = torch.exp(logprobs - old_logprobs.detach())
    return ratio * estimate(logprobs, ref_logprobs, estimator)
