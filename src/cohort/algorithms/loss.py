"""From an objective and a batch to the policy loss, in pieces that a learner can split by rows.

    policy_loss == (per_token_loss * token_weight).sum() + own_terms.sum()

`per_token_loss` looks at one row at a time, `token_weight` and `batchwide` at the whole optimizer batch. Log-probs,
masks and advantages are [B, T]: no tensor over the vocabulary is ever made. Values outside the mask do not matter and
may be NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict, Unpack

import torch
from torch import Tensor

from cohort.algorithms import corrections, distill, kl, losses, token_weights, trust
from cohort.algorithms.batchwide import About, Batchwide, decide

if TYPE_CHECKING:
    from cohort.algorithms.objective import Objective


class Beside(TypedDict, total=False):
    """What every part of the loss may be given beside; `policy_loss` says what it is."""

    teacher_logprobs: Tensor | None
    versions: Tensor | None
    current_version: int | None


def policy_loss(
    objective: Objective,
    *,
    logprobs: Tensor,  # [B, T] of the policy being updated, with its gradient
    old_logprobs: Tensor | None,  # [B, T] of the policy at the start of the update; None where `old` says another one
    mask: Tensor,  # [B, T] true where the policy chose the token
    advantages: Tensor,  # [B] or [B, T]
    ref_logprobs: Tensor | None = None,  # [B, T]
    sampler_logprobs: Tensor | None = None,  # [B, T] of the engine that sampled
    group: Tensor | None = None,  # [B] prompt index, for prompt_token_mean
    max_tokens: int | None = None,  # the generation budget, for constant_length
    entropy: Tensor | None = None,  # [B, T] with its gradient, for entropy_coef
    teacher_logprobs: Tensor | None = None,  # [B, T] of a teacher, for teacher_coef; NaN where none speaks of a token
    rewards: Tensor | None = None,  # [B] for an extra term of the tokens of positive completions
    expert_logprobs: Tensor | None = None,  # [N] of the tokens of expert rows under the policy, with their gradient
    observation_logprobs: Tensor | None = None,  # [N] of what the environment wrote, with their gradient
    versions: Tensor | None = None,  # [B, T] the weights that drew each token, for old="interpolate"
    current_version: int | None = None,  # the number that the weights will have after this update
    step: int = 0,  # counted from 0, for blend
    seed: int = 0,  # of what is chosen at random among tokens
) -> Tensor:
    """The scalar to minimise, in the dtype of `logprobs`; gradients flow to `logprobs`, those of experts and
    observations, and `entropy` only.

    The rows are the whole optimizer batch. Raises ValueError if a tensor that the objective needs is missing or has
    another shape.
    """
    given, sampler = (objective, logprobs, old_logprobs, mask, advantages), sampler_logprobs
    beside: Beside = {"teacher_logprobs": teacher_logprobs, "versions": versions, "current_version": current_version}
    weight = token_weight(objective, mask, group, max_tokens)
    whole = batchwide(
        *given, sampler, weight=weight, rewards=rewards, group=group, entropy=entropy, seed=seed, **beside
    )
    per_token = per_token_loss(*given, ref_logprobs, sampler, entropy=entropy, whole=whole, **beside)
    share = objective.expert_share(step)
    loss = (1 - share) * (per_token * weight.to(per_token.dtype)).sum()
    loss = loss + own_terms(*given, sampler, whole=whole, **beside).sum()
    for tokens, found in (("expert", expert_logprobs), ("observation", observation_logprobs)):
        for kind, of, coef, focus in objective.extras:
            if of == tokens:
                found = _needed(found, f"{tokens}_logprobs", f"an extra term of {tokens} tokens", "[N]")
                coef = coef * share if objective.blend and tokens == "expert" else coef
                loss = loss + coef * term(kind, focus, found, found).sum() / max(found.numel(), 1)
    return loss.to(logprobs.dtype)


def token_weight(
    objective: Objective, mask: Tensor, group: Tensor | None = None, max_tokens: int | None = None
) -> Tensor:
    """How much each token counts, [B, T] float64. `mask` must be that of the whole optimizer batch, over all ranks."""
    return token_weights.AGGREGATIONS[objective.aggregation](mask, group, max_tokens)


@torch.no_grad()
def batchwide(
    objective: Objective,
    logprobs: Tensor,
    old_logprobs: Tensor | None,
    mask: Tensor,
    advantages: Tensor,
    sampler_logprobs: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    rewards: Tensor | None = None,
    group: Tensor | None = None,
    observed: Tensor | None = None,
    entropy: Tensor | None = None,
    seed: int = 0,
    **beside: Unpack[Beside],
) -> Batchwide:
    """What is decided once over the whole optimizer batch. `logprobs` are those at the start of the update (of
    label_contrast, those at hand); `weight` [B, T] is `token_weight`, `rewards` and `group` are [B], and
    `observed` [B, T] is true where the environment wrote. `entropy` [B, T] is for top_entropy, `seed` for what is
    drawn.
    """
    if not objective.is_batchwide:
        return Batchwide()
    tokens = _tokens(objective, logprobs, old_logprobs, mask, advantages, sampler_logprobs, **beside)
    weight = torch.zeros_like(tokens.logprobs) if weight is None else weight
    return decide(objective, tokens, About(weight, rewards, group, observed, entropy, seed))


def per_token_loss(
    objective: Objective,
    logprobs: Tensor,
    old_logprobs: Tensor | None,
    mask: Tensor,
    advantages: Tensor,
    ref_logprobs: Tensor | None = None,
    sampler_logprobs: Tensor | None = None,
    *,
    entropy: Tensor | None = None,
    whole: Batchwide | None = None,
    **beside: Unpack[Beside],
) -> Tensor:
    """The loss of each token before aggregation, [B, T], 0 outside the mask. Rows do not see each other.

    -kept * correction * surrogate + kl_coef * KL - entropy_coef * entropy. The correction multiplies the clipped
    surrogate and not the KL, and so does what masks, filters and choices of tokens leave (`kept`, detached). What a
    teacher says of a token enters its advantage (`distill.advantages`). `whole` are these rows of what `batchwide` says
    of the whole optimizer batch. Half-precision log-probs are raised to float32.
    """
    _check_shapes(logprobs, mask, advantages, old_logprobs=old_logprobs, ref_logprobs=ref_logprobs, entropy=entropy,
                  sampler_logprobs=sampler_logprobs, **beside)  # fmt: skip
    tokens = _tokens(objective, logprobs, old_logprobs, mask, advantages, sampler_logprobs, **beside)
    o, whole = objective, _whole(objective, whole)
    logprobs, old, mask = tokens.logprobs, tokens.old_logprobs, tokens.mask  # [B, T]

    loss = -losses.SURROGATES[o.surrogate].value(o, tokens)
    for kept in (trust.kept(o, tokens), whole.keep):
        loss = loss if kept is None else loss * kept
    if (future := trust.future(o, tokens)) is not None:
        loss = loss * future
    if o.correction != "off" and o.surrogate != "gamma":  # which takes it into its own weight
        loss = loss * corrections.weight(o.correction, old, tokens.behaviour, mask, o.correction_min, o.correction_max)
    if o.kl_coef and o.kl_place == "loss":
        ref = _inside(_needed(ref_logprobs, "ref_logprobs", f"kl_coef={o.kl_coef:g}"), mask, like=logprobs).detach()
        if o.kl_gradient == "weighted":
            loss = loss + o.kl_coef * kl.weighted(logprobs, ref, old, o.kl_estimator)
        else:
            loss = loss + o.kl_coef * kl.estimate(logprobs, ref, o.kl_estimator)
    if o.entropy_coef:
        loss = loss - o.entropy_coef * _inside(
            _needed(entropy, "entropy", f"entropy_coef={o.entropy_coef:g}"), mask, like=logprobs
        )
    return loss.masked_fill(~mask, 0)


def own_terms(
    objective: Objective,
    logprobs: Tensor,
    old_logprobs: Tensor | None,
    mask: Tensor,
    advantages: Tensor,
    sampler_logprobs: Tensor | None = None,
    *,
    whole: Batchwide | None = None,
    **beside: Unpack[Beside],
) -> Tensor:
    """The terms that have divisors of their own, weighted already: the sum over all rows is what they add to the loss.
    [B, T], as in `per_token_loss`; where `whole` has weights for tokens outside the mask (observations), these count.
    """
    o, whole = objective, _whole(objective, whole)
    x = _tokens(o, logprobs, old_logprobs, mask, advantages, sampler_logprobs, **beside)
    found = torch.zeros_like(x.logprobs)
    for (kind, _, coef, focus), weight in zip(o.extras, whole.extras, strict=True):
        if weight is not None:
            inside = weight != 0
            value = term(kind, focus, _inside(logprobs, inside), x.old_logprobs)
            found = found + coef * (value * weight.to(value.dtype)).masked_fill(~inside, 0)
    if whole.slopes is not None and whole.values is not None:
        moved = x.logprobs - x.logprobs.detach()
        found = found + whole.slopes.to(moved.dtype) * moved + whole.values.to(moved.dtype)
    return found


def term(kind: str, focus: str, logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """A term of each token, of any shape. `uncertain` multiplies by p (1 - p), detached (CHORD 2508.11408)."""
    value = losses.TERMS[kind](logprobs, old_logprobs)
    if focus == "none":
        return value
    p = logprobs.detach().exp()
    return p * (1 - p) * value


@torch.no_grad()
def kl_in_reward(objective: Objective, logprobs: Tensor, ref_logprobs: Tensor | None, mask: Tensor) -> Tensor:
    """The penalty on each token of a KL in the reward: kl_coef * estimator, [B, T], detached, 0 outside the mask.

    `logprobs` are those of the policy that is about to be updated (old_logprobs). How the penalty enters:

    * group and batch baselines: reward_i - penalty_i.sum(-1), *before* `objective.advantages` (RLOO);
    * a critic, or REINFORCE++ token by token: `advantages.token_rewards(scores, mask, penalty)`, then `advantages.gae`.

    The penalty is 0 where the objective has no KL, or has it in the loss, so callers may always subtract it.
    """
    o, mask = objective, mask.bool()
    logprobs = _inside(logprobs, mask)
    if not o.kl_coef or o.kl_place != "reward":
        return torch.zeros_like(logprobs)
    ref = _inside(_needed(ref_logprobs, "ref_logprobs", f"kl_coef={o.kl_coef:g} in the reward"), mask, like=logprobs)
    return o.kl_coef * kl.estimate(logprobs, ref, o.kl_estimator)


def mask_truncated(objective: Objective, mask: Tensor, truncated: Tensor) -> Tensor:
    """The loss mask [B, T] under the objective's `truncated` rule; `truncated` [B] marks completions cut off.

    With "mask" (DAPO's overlong filtering) their tokens leave the loss. Their rewards stay in the group's baseline,
    as in TRL.
    """
    if objective.truncated == "keep":
        return mask.bool()
    return mask.bool() & ~truncated.bool()[:, None]


@torch.no_grad()
def loss_metrics(
    objective: Objective,
    logprobs: Tensor,
    old_logprobs: Tensor | None,
    mask: Tensor,
    advantages: Tensor,
    ref_logprobs: Tensor | None = None,
    sampler_logprobs: Tensor | None = None,
    *,
    entropy: Tensor | None = None,
    whole: Batchwide | None = None,
    **beside: Unpack[Beside],
) -> dict[str, Tensor]:
    """Where the loss clipped and how far the policies are apart, as sums over tokens that `merge_metrics` adds up.

    Each is a 0-dim float64 without gradient:

    tokens                unmasked tokens; divide the others by it
    clip_low, clip_high   tokens whose gradient the lower (upper) clip removed; for truncated, whose weight it capped
    dual_clip             tokens whose gradient dual_clip or, for A < 0, ratio_max removed
    ratio, ratio_max      sum and maximum of the ratio (at the objective's level)
    kl                    with ref_logprobs: sum of the objective's estimator (k3 where it has no KL)
    mismatch, corrected   with sampler_logprobs: sum of |old - sampler|; tokens whose weight is not the raw ratio
    entropy               with entropy: its sum
    masked, filtered      where the objective has such: tokens with an advantage that a mask took for having moved; that
                          filters and choices over the whole batch left out
    """
    o = objective
    tokens = _tokens(o, logprobs.detach(), old_logprobs, mask, advantages, sampler_logprobs, **beside)
    logprobs, old, mask = tokens.logprobs, tokens.old_logprobs, tokens.mask
    ratio = tokens.ratio(o)
    low, high, dual = losses.SURROGATES[o.surrogate].clips(o, tokens, ratio)

    metrics = {
        "tokens": _count(mask),
        "clip_low": _count(low & mask),
        "clip_high": _count(high & mask),
        "dual_clip": _count(dual & mask),
        "ratio": _sum(ratio, mask),
        "ratio_max": ratio.masked_fill(~mask, 0).max().double() if ratio.numel() else _count(mask),
    }
    if ref_logprobs is not None:
        estimator = o.kl_estimator if o.kl_coef else "k3"
        metrics["kl"] = _sum(kl.estimate(logprobs, _inside(ref_logprobs, mask, like=logprobs), estimator), mask)
    if sampler_logprobs is not None:
        sampler = tokens.behaviour
        metrics["mismatch"] = _sum((old - sampler).abs(), mask)
        if o.correction != "off":
            args = (o.correction, old, sampler, mask)
            bounded, free = corrections.weight(*args, o.correction_min, o.correction_max), corrections.weight(*args)
            metrics["corrected"] = _count((bounded != free) & mask)
    if entropy is not None:
        metrics["entropy"] = _sum(entropy, mask)
    pushed = mask & (tokens.advantages != 0)
    for name, kept in (("masked", trust.kept(o, tokens)), ("filtered", _whole(o, whole).keep)):
        if kept is not None:
            metrics[name] = _count(pushed & ~kept.bool())
    return metrics


def merge_metrics(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
    """The metrics of two disjoint sets of rows as those of their union: sums add, `ratio_max` takes the larger."""
    merged = {**other, **one}
    for name in one.keys() & other.keys():
        merged[name] = torch.maximum(one[name], other[name]) if name == "ratio_max" else one[name] + other[name]
    return merged


def _tokens(
    o: Objective,
    logprobs: Tensor,
    old_logprobs: Tensor | None,
    mask: Tensor,
    advantages: Tensor,
    sampler_logprobs: Tensor | None = None,
    teacher_logprobs: Tensor | None = None,
    versions: Tensor | None = None,
    current_version: int | None = None,
) -> losses.Tokens:
    mask = mask.bool()
    logprobs = _inside(logprobs, mask)
    sampler = None if sampler_logprobs is None else _inside(sampler_logprobs, mask, like=logprobs).detach()
    by_token = advantages[:, None].expand(mask.shape) if advantages.ndim == 1 else advantages
    own = _inside(by_token, mask, like=logprobs).detach()
    if o.old == "recompute":
        old = _inside(_needed(old_logprobs, "old_logprobs", "old='recompute'"), mask, like=logprobs).detach()
    else:
        old = _needed(sampler, "sampler_logprobs", f"old={o.old!r}")
        if o.old == "interpolate":
            versions = _needed(versions, "versions", "old='interpolate'")
            if current_version is None:
                raise ValueError("current_version is missing and old='interpolate' needs it; pass the number that the "
                                 "weights will have after this update")  # fmt: skip
            old = corrections.interpolated(logprobs, old, versions, current_version).masked_fill(~mask, 0)
    if o.teacher_coef:
        teacher = _needed(teacher_logprobs, "teacher_logprobs", f"teacher_coef={o.teacher_coef:g}")
        own = distill.advantages(o, own, old, _inside(teacher, mask, like=logprobs), mask)
    return losses.Tokens(logprobs, old, mask, own, old if sampler is None else sampler)


def _whole(o: Objective, whole: Batchwide | None) -> Batchwide:
    if whole is None and o.is_batchwide:
        raise ValueError("this objective decides over the whole optimizer batch: pass whole=batchwide(...), its rows")
    return Batchwide() if whole is None else whole


def _inside(x: Tensor, mask: Tensor, like: Tensor | None = None) -> Tensor:
    """`x` with 0 outside the mask, in the dtype of `like`, or else in at least float32."""
    if like is not None:
        x = x.to(like.dtype)
    elif x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    return x.masked_fill(~mask, 0)


def _needed(x: Tensor | None, name: str, because: str, shape: str = "[B, T]") -> Tensor:
    if x is None:
        raise ValueError(f"{name} is missing and {because} needs it; pass {name} {shape}, or switch that off")
    return x


def _check_shapes(logprobs: Tensor, mask: Tensor, advantages: Tensor, **others: Tensor | int | None) -> None:
    if logprobs.ndim != 2:
        raise ValueError(f"logprobs has shape {tuple(logprobs.shape)}; give [B, T], one log-prob per sampled token")
    shape = tuple(logprobs.shape)
    for name, tensor in {"mask": mask, **others}.items():
        if isinstance(tensor, Tensor) and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)} and logprobs {shape}; they must agree")
    if tuple(advantages.shape) not in (shape, shape[:1]):
        raise ValueError(
            f"advantages has shape {tuple(advantages.shape)}; give [{shape[0]}] or [{shape[0]}, {shape[1]}]"
        )


def _count(chosen: Tensor) -> Tensor:
    return chosen.sum(dtype=torch.float64)


def _sum(x: Tensor, mask: Tensor) -> Tensor:
    return x.masked_fill(~mask, 0).sum(dtype=torch.float64)
