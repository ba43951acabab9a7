"""Per-token surrogates, unreduced, and the losses of pairs: Bradley-Terry of a reward model, DPO and IPO of a policy.

A surrogate is what the paper *maximises*, token by token; the policy loss is its negative. `SURROGATES` names them and
says where each of them clips. Shapes are [B, T]
throughout, B completions padded to T tokens. Quantities of a whole completion (a sequence ratio, GMPO's surrogate)
are repeated on each of its tokens, so that one weight per token can aggregate them all: under `sequence_mean` a
completion's T copies with weight 1/(B * L_i) are one value with weight 1/B.

`ratio` is policy / old policy; `clip_low` and `clip_high` are offsets from 1, None switches a side off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cohort.algorithms import corrections
from cohort.algorithms.fields import nearest

if TYPE_CHECKING:
    from cohort.algorithms.objective import Objective

# exp(89) is infinite in float32, and infinity times the zero gradient of a clipped token is NaN.
LARGEST_LOG_RATIO = 80.0


def log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, level: str = "token") -> Tensor:
    """log(policy / old policy) [B, T], 0 outside the mask.

    token             of each token (PPO, GRPO)
    sequence          the mean over the completion's tokens: the length-normalised ratio s_i (GSPO eq. 7)
    sequence_token    s_i in value, the token's own ratio in gradient (GSPO-token eq. 14)
    sequence_product  the sum over the completion's tokens: the full ratio S_i of the completion as one action
    """
    if level not in RATIO_LEVELS:
        raise ValueError(f"ratio_level={level!r} is unknown{nearest(level, RATIO_LEVELS)}")
    mask = mask.bool()
    token = (logprobs - old_logprobs.detach()).masked_fill(~mask, 0)  # [B, T]
    total = token.sum(-1, keepdim=True)  # [B, 1]
    mean = total / mask.sum(-1, keepdim=True).clamp(min=1)  # [B, 1]
    return RATIO_LEVELS[level](token, total, mean).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)


RATIO_LEVELS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "token": lambda token, total, mean: token,
    "sequence": lambda token, total, mean: mean.expand_as(token),
    "sequence_token": lambda token, total, mean: mean.detach() + (token - token.detach()),
    "sequence_product": lambda token, total, mean: total.expand_as(token),
}


def clipped(
    ratio: Tensor,
    advantages: Tensor,
    clip_low: float | None = 0.2,
    clip_high: float | None = 0.2,
    dual_clip: float | None = None,
    ratio_max: float | None = None,
) -> Tensor:
    """min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A). PPO (1707.06347 eq. 7), GRPO, DAPO, GSPO.

    The gradient is 0 only where A > 0 and ratio > 1 + clip_high, or A < 0 and ratio < 1 - clip_low. A token with A <
    0 and a large ratio is therefore unbounded; two options bound it:

    `dual_clip`  c > 1: for A < 0 the surrogate is at least c * A (Dual-clip PPO; verl's default, c = 3).
    `ratio_max`  a cap on the unclipped ratio (INTELLECT-2; TRL's `delta`); the same as dual_clip when >= 1 + clip_high.
    """
    capped = ratio if ratio_max is None else ratio.clamp(max=ratio_max)
    unclipped = capped * advantages
    if clip_low is None and clip_high is None:
        surrogate = unclipped
    else:
        surrogate = torch.minimum(unclipped, _clip(ratio, clip_low, clip_high) * advantages)
    if dual_clip is None:
        return surrogate
    return torch.where(advantages < 0, torch.maximum(surrogate, dual_clip * advantages), surrogate)


def truncated(
    ratio: Tensor,
    advantages: Tensor,
    logprobs: Tensor,
    clip_low: float | None = None,
    clip_high: float | None = None,
    ratio_max: float | None = None,
    positive_weight: str = "ratio",
) -> Tensor:
    """sg[clip(ratio)] * A * log pi: the weight is capped, no token loses its gradient. CISPO (2506.13585 eq. 4-5).

    With `positive_weight` "one" the weight is 1 where A > 0: TOPR (2503.14286), with a cap of 1 for the others.
    The cap is `ratio_max`, or 1 + clip_high, or the smaller of the two. `clip_low` None is the paper's setting (no
    lower bound). The value holds raw log-probs, so it cannot be compared with that of a clipped loss.
    """
    weight = ratio.detach()
    if clip_low is not None or clip_high is not None:
        weight = _clip(weight, clip_low, clip_high)
    if ratio_max is not None:
        weight = weight.clamp(max=ratio_max)
    if positive_weight == "one":
        weight = torch.where(advantages > 0, 1.0, weight)
    return weight * advantages * logprobs


def gamma(log_ratio: Tensor, advantages: Tensor, logprobs: Tensor, positive: Sequence[float],
          negative: Sequence[float]) -> Tensor:  # fmt: skip
    """sg[phi(W)] * A * log pi, phi(W) = W^k exp(lambda (1 - W)), W the completion's full ratio. VESPO (2602.10693).

    `positive` is (k, lambda) where A >= 0, `negative` where A < 0. phi(1) = 1, and its peak is at k / lambda. log W is
    held between ln 1e-8 and 20.
    """
    log_w = log_ratio.detach().clamp(math.log(1e-8), 20)
    k, lam = (torch.where(advantages >= 0, p, n) for p, n in zip(positive, negative, strict=True))
    return torch.exp(k * log_w + lam * (1 - log_w.exp())) * advantages * logprobs


def soft(ratio: Tensor, advantages: Tensor, positive: float = 1.0, negative: float = 1.05) -> Tensor:
    """(4 / tau) * sigmoid(tau * (ratio - 1)) * A, tau = `positive` where A > 0 else `negative`. SAPO (2511.20347).

    Its gradient is the unclipped one times sech^2(tau * (ratio - 1) / 2): 1 on policy, falling smoothly. Its value at
    ratio 1 is (2 / tau) * A, not A.
    """
    tau = torch.full_like(ratio, negative).masked_fill(advantages > 0, positive)
    return 4 / tau * torch.sigmoid(tau * (ratio - 1)) * advantages


def geometric(
    token_log_ratio: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float | None = 0.4,
    clip_high: float | None = 0.4,
) -> Tensor:
    """A_i * exp(mean over tokens of the one-sidedly clipped log-ratio). GMPO (2507.20673 eq. 4).

    Clips are in LOG space, before the mean: log-ratio at most clip_high where A >= 0, at least -clip_low where A < 0.
    A clipped token has no gradient but stays in the product. If A differs between a completion's tokens, each token
    is clipped by its own sign and the completion's A is their mean, as in verl.
    """
    upper = token_log_ratio if clip_high is None else token_log_ratio.clamp(max=clip_high)
    lower = token_log_ratio if clip_low is None else token_log_ratio.clamp(min=-clip_low)
    clipped_tokens = torch.where(advantages >= 0, upper, lower).masked_fill(~mask, 0)
    lengths = mask.sum(-1, keepdim=True).clamp(min=1)  # [B, 1]
    ratio = torch.exp(clipped_tokens.sum(-1, keepdim=True) / lengths)  # [B, 1]
    advantage = advantages.masked_fill(~mask, 0).sum(-1, keepdim=True) / lengths  # [B, 1]
    return (ratio * advantage).expand_as(token_log_ratio)


def reinforce(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """A * log pi: no ratio, no clip. Exact for one update on fresh samples (RLOO, REINFORCE, MaxRL)."""
    return advantages * logprobs


def bradley_terry(
    chosen: Tensor, rejected: Tensor, margin: Tensor | float | None = None, centring: float = 0.0
) -> Tensor:
    """-log sigmoid(chosen - rejected - margin), averaged over pairs: a scalar to minimise.

    How a reward model learns from preferences.

    `chosen` and `rejected` are scores [N] of the two answers of each pair, `margin` a number or [N] (Llama 2's margin
    loss). `centring` adds centring * mean((chosen + rejected)^2), which pulls scores to 0 (0.01 is usual); without it
    only differences of scores mean anything.

    Raises ValueError if the shapes differ or there is no pair.
    """
    if chosen.shape != rejected.shape or chosen.numel() == 0:
        raise ValueError(
            f"chosen has shape {tuple(chosen.shape)} and rejected {tuple(rejected.shape)}; give one score per answer "
            "of at least one pair, in tensors of the same shape"
        )
    difference = chosen - rejected
    if margin is not None:
        difference = difference - margin
    loss = -F.logsigmoid(difference).mean()
    if centring:
        loss = loss + centring * (chosen + rejected).square().mean()
    return loss


def dpo(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Tensor:
    """DPO (2305.18290 eq. 7) of each pair, [N], to minimise: -log sigmoid(h), h = beta * ((chosen - ref_chosen) -
    (rejected - ref_rejected)), of log-probs [N] of whole answers, sums over their tokens.

    With `label_smoothing` e, that share of the pairs is taken to be labelled the wrong way round (conservative DPO):
    -(1 - e) * log sigmoid(h) - e * log sigmoid(-h), which is smallest at a finite h = log((1 - e) / e). In the terms of
    DeepSeekMath's unified view the gradient coefficient of the chosen answer is beta * sigmoid(-h), of the rejected
    one its negative. Raises ValueError if the shapes differ or there is no pair.
    """
    margin = beta * log_ratios(chosen, rejected, ref_chosen, ref_rejected)
    return -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)


def ipo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float = 0.1) -> Tensor:
    """IPO (2310.12036 eq. 17) of each pair, [N], to minimise: (h - 1 / (2 * beta))^2, h the difference of log-ratios.

    `beta` is the paper's tau. Where DPO drives h without end on pairs that are always labelled alike, IPO holds it at
    1 / (2 * beta). Log-probs are sums over tokens, as in the paper; some libraries take means, which is another loss.
    """
    return (log_ratios(chosen, rejected, ref_chosen, ref_rejected) - 1 / (2 * beta)).square()


def log_ratios(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Tensor:
    """By how much more than the reference the policy prefers the chosen answer of each pair, in nats, [N]."""
    if len({one.shape for one in (chosen, rejected, ref_chosen, ref_rejected)}) > 1 or chosen.numel() == 0:
        raise ValueError(
            f"chosen has shape {tuple(chosen.shape)} and rejected {tuple(rejected.shape)}; give one log-prob per "
            "answer of at least one pair, of policy and reference, in tensors of the same shape"
        )
    return (chosen - rejected) - (ref_chosen - ref_rejected).detach()


def _clip(ratio: Tensor, clip_low: float | None, clip_high: float | None) -> Tensor:
    low = None if clip_low is None else 1 - clip_low
    high = None if clip_high is None else 1 + clip_high
    return ratio.clamp(low, high)


class Tokens(NamedTuple):
    """What a surrogate looks at, [B, T] each, 0 outside the mask."""

    logprobs: Tensor
    old_logprobs: Tensor
    mask: Tensor
    advantages: Tensor
    behaviour: Tensor  # log-probs of what sampled; the old policy's where nobody says

    def ratio(self, o: Objective) -> Tensor:
        """Policy / old policy at the objective's level. [B, T]"""
        return log_ratio(self.logprobs, self.old_logprobs, self.mask, o.ratio_level).exp()


def _full_ratio(o: Objective, x: Tokens) -> Tensor:
    """log W of each completion, with what a correction makes of the mismatch of its tokens. [B, T]"""
    log_w = log_ratio(x.logprobs, x.old_logprobs, x.mask, "sequence_product")
    if o.correction == "off":
        return log_w
    args = (o.correction, x.old_logprobs, x.behaviour, x.mask, o.correction_min, o.correction_max)
    return log_w + corrections.weight(*args).clamp(min=1e-8).log().sum(-1, keepdim=True)


def _clips_nothing(o: Objective, x: Tokens, ratio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    nowhere = torch.zeros_like(x.mask)
    return nowhere, nowhere, nowhere


class Surrogate(NamedTuple):
    """A surrogate as the loss uses it: its value, and the tokens on which its bounds act.

    `value` gives what is maximised, [B, T]. `clips` also takes the ratio and gives three [B, T] bool: where the
    lower clip acts, where the upper clip acts, and where a bound for negative advantages does.
    """

    value: Callable[[Objective, Tokens], Tensor]
    clips: Callable[[Objective, Tokens, Tensor], tuple[Tensor, Tensor, Tensor]] = _clips_nothing


def _offsets(o: Objective) -> tuple[float, float]:
    return math.inf if o.clip_low is None else o.clip_low, math.inf if o.clip_high is None else o.clip_high


def _clips_of_clipped(o: Objective, x: Tokens, ratio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    (low, high), A = _offsets(o), x.advantages
    largest = min((bound for bound in (o.dual_clip, o.ratio_max) if bound is not None), default=math.inf)
    return (A < 0) & (ratio < 1 - low), (A > 0) & (ratio > 1 + high), (A < 0) & (ratio > largest)


def _clips_of_truncated(o: Objective, x: Tokens, ratio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    (low, high), pushed = _offsets(o), x.advantages != 0
    cap = min(1 + high, o.ratio_max or math.inf)
    if o.positive_weight == "one":
        pushed = x.advantages < 0
    return pushed & (ratio < 1 - low), pushed & (ratio > cap), torch.zeros_like(pushed)


def _clips_of_geometric(o: Objective, x: Tokens, ratio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    (low, high), moved, A = _offsets(o), x.logprobs - x.old_logprobs, x.advantages
    return (A < 0) & (moved < -low), (A > 0) & (moved > high), torch.zeros_like(x.mask)


# Extra terms: (log-probs, old log-probs) to what is minimised of each token. |x| has no gradient at 0.
TERMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "drift_square": lambda logprobs, old: (logprobs - old).square(),
    "drift_absolute": lambda logprobs, old: (logprobs - old).abs(),
    "nll": lambda logprobs, old: -logprobs,
}

SURROGATES: dict[str, Surrogate] = {
    "clipped": Surrogate(
        lambda o, x: clipped(x.ratio(o), x.advantages, o.clip_low, o.clip_high, o.dual_clip, o.ratio_max),
        _clips_of_clipped,
    ),
    "truncated": Surrogate(
        lambda o, x: truncated(
            x.ratio(o), x.advantages, x.logprobs, o.clip_low, o.clip_high, o.ratio_max, o.positive_weight
        ),
        _clips_of_truncated,
    ),
    "soft": Surrogate(lambda o, x: soft(x.ratio(o), x.advantages, o.soft_positive, o.soft_negative)),
    "geometric": Surrogate(
        lambda o, x: geometric(
            log_ratio(x.logprobs, x.old_logprobs, x.mask), x.advantages, x.mask, o.clip_low, o.clip_high
        ),
        _clips_of_geometric,
    ),
    "reinforce": Surrogate(lambda o, x: reinforce(x.logprobs, x.advantages)),
    "gamma": Surrogate(
        lambda o, x: gamma(_full_ratio(o, x), x.advantages, x.logprobs, o.gamma_positive, o.gamma_negative)
    ),
    "label_contrast": Surrogate(lambda o, x: torch.zeros_like(x.logprobs)),  # its loss is of groups: `own_terms`
}
