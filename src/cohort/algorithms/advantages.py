"""From rewards to advantages: how much better each answer was than the others of its group.

Rewards come as [P, G], P prompts with G completions each. Everything is computed in float64 and returned in float64: in
float32 eight rewards of 0.1 have a spread of 8e-9, and dividing by it makes an advantage of -0.41 out of nothing.

Two rules hold throughout:

* NaN marks a missing reward. It is left out of every sum and every statistic. A completion without any reward has
  advantage 0.
* A group whose rewards are all equal (max == min, never "std < eps") has advantage exactly 0 wherever the group
  supplies the baseline or the scale. The same holds for a whole batch where the batch supplies them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cohort.algorithms.credit import gigpo, hierarchical, optimal_token_baseline, role_baseline
from cohort.algorithms.fields import GROUP_BASELINES, GROUP_SCALES, nearest

__all__ = ["BASELINES", "SCALES", "gae", "gdpo", "gigpo", "hierarchical", "normalise", "optimal_token_baseline",
           "pass_at_k", "process_supervision", "role_baseline", "token_rewards", "weighted_sum", "whiten"]  # fmt: skip


def normalise(
    rewards: Tensor,
    baseline: str = "group_mean",
    scale: str = "group_std",
    ddof: int = 1,
    eps: float = 1e-6,
    lengths: Tensor | None = None,
) -> Tensor:
    """(reward - baseline) / (scale + eps), [P, G] -> [P, G] float64.

    With `lengths` [P, G], tokens of each completion, centred_batch_std is taken over tokens, and their mean is taken
    off first: REINFORCE++ as it is implemented. A group whose rewards are all equal then has an advantage other
    than 0.

    `baseline` is a key of `BASELINES`, `scale` "none" or a key of `SCALES`; `fields.FIELDS` says what each does.
    `ddof` 1 is the sample std, 0 the population std.

    Raises ValueError for groups of one, infinite or wrongly shaped rewards, and for rewards so large, or so close to
    each other with an eps of 0, that float64 cannot hold their spread.
    """
    r, present = _rewards(rewards)
    _check_choices(r, baseline, scale)

    centred = r - BASELINES[baseline](r, present)
    divisor = torch.ones_like(r) if scale == "none" else SCALES[scale](r, centred, present, ddof, eps)
    scaled = centred if scale == "none" else centred / divisor

    if lengths is not None and scale == "centred_batch_std":
        return _whitened_by_token(centred, present, torch.as_tensor(lengths), ddof, eps)
    no_signal = torch.zeros_like(present)
    if baseline in GROUP_BASELINES or scale in GROUP_SCALES:
        no_signal |= _all_equal(r, present, dim=(1,))
    if baseline == "batch_mean" or scale in ("batch_std", "centred_batch_std"):
        no_signal |= _all_equal(r, present, dim=(0, 1))
    return _in_range(torch.where(present & ~no_signal, scaled, 0), divisor, present & ~no_signal)


def gdpo(
    rewards: Tensor,
    weights: Sequence[float] | Tensor | None = None,
    ddof: int = 1,
    eps: float = 1e-4,
    whiten: bool = True,
) -> Tensor:
    """Several rewards, each normalised in its group, then added: [P, G, K] -> [P, G]. GDPO (2601.05242 eq. 4-7).

    A_k = (r_k - mean) / (std + eps) per reward, their sum weighted by `weights` [K] (default 1), then, with `whiten`,
    (A - mean) / (std + eps) over all completions of the batch. The sum is whitened even when K is 1, as the equations
    and TRL have it. A missing component adds nothing; a completion of which every component with a weight is missing
    has advantage 0 and is left out of the whitening. `eps` 1e-4 is TRL's; the paper prints none.
    """
    r = torch.as_tensor(rewards, dtype=torch.float64)
    if r.ndim != 3:
        raise ValueError(f"rewards has shape {tuple(r.shape)}; gdpo takes [P, G, K], K rewards for each completion")
    weight = _component_weights(weights, r)
    parts = torch.stack([normalise(r[..., k], ddof=ddof, eps=eps) for k in range(r.shape[2])], dim=-1)  # [P, G, K]
    parts = parts * weight
    total = parts.sum(-1)  # [P, G]
    if not whiten:
        return _in_range(total, total, torch.ones_like(total, dtype=torch.bool))
    present = (~r.isnan() & (weight != 0)).any(-1)  # [P, G]
    divisor = _std(total, present, (0, 1), ddof) + eps
    whitened = (total - _mean(total, present, (0, 1))) / divisor
    no_signal = (parts == 0).all(-1).all(-1, keepdim=True)  # [P, 1]: every component that counts is constant
    return _in_range(torch.where(present & ~no_signal, whitened, 0), divisor, present & ~no_signal)


def weighted_sum(rewards: Tensor, weights: Sequence[float] | Tensor | None = None) -> Tensor:
    """Several rewards added before normalising: [P, G, K] -> [P, G].

    A component that is missing adds nothing to its completion's sum. Where every component with a weight is missing, so
    is the sum. (`cohort.rewards` adds up the same way.)
    """
    r = torch.as_tensor(rewards, dtype=torch.float64)
    weight = _component_weights(weights, r)
    present = ~r.isnan() & (weight != 0)  # [P, G, K]
    total = torch.where(present, r * weight, 0).sum(-1)  # [P, G]
    if not total.isfinite().all():
        raise ValueError("rewards times their weights are more than float64 holds; scale them to a range near 1")
    return torch.where(present.any(-1), total, torch.nan)


def pass_at_k(rewards: Tensor, k: int) -> Tensor:
    """Advantages for pass@k rather than pass@1: [P, G] of 0 and 1 -> [P, G]. Pass@k Training (2508.10751).

    With N rewards, n of them 0: R = 1 - C(n, k)/C(N, k) is the chance that one of k draws is right, s = sqrt(R (1 -
    R)); a right answer gets (1 - R)/s, a wrong one (1 - R - C(n-1, k-1)/C(N-1, k-1))/s; a group with s = 0 gets 0.

    Raises ValueError unless rewards are 0, 1 or NaN and 1 <= k <= G.
    """
    r, present = _rewards(rewards)
    if not 1 <= k <= r.shape[1]:
        raise ValueError(f"k={k} must lie between 1 and the group size {r.shape[1]}")
    if not ((r == 0) | (r == 1))[present].all():
        raise ValueError(
            "rewards must be 0 or 1 for pass_at_k: it counts right answers; threshold graded rewards first"
        )
    result = torch.zeros_like(r)
    for prompt in range(r.shape[0]):
        here = present[prompt]
        total, wrong = int(here.sum()), int((here & (r[prompt] == 0)).sum())
        if total < k:
            continue
        no_hit = math.comb(wrong, k) / math.comb(total, k)  # 1 - R
        spread = math.sqrt(no_hit * (1 - no_hit))
        if spread == 0:
            continue
        right_advantage = no_hit / spread
        wrong_advantage = (no_hit - math.comb(wrong - 1, k - 1) / math.comb(total - 1, k - 1)) / spread
        result[prompt, here & (r[prompt] == 1)] = right_advantage
        result[prompt, here & (r[prompt] == 0)] = wrong_advantage
    return result


def process_supervision(
    step_rewards: Sequence[Sequence[float]],
    step_ends: Sequence[Sequence[int]],
    lengths: Sequence[int],
    ddof: int = 1,
    eps: float = 1e-6,
    scale: str = "group_std",
) -> Tensor:
    """Advantages of one group from rewards of reasoning steps: [G, max(lengths)] float64. DeepSeekMath 4.1.3.

    `step_rewards[i][j]` is the reward of step j of completion i, `step_ends[i][j]` the 0-based index of that step's
    last token, `lengths[i]` the completion's tokens. All step rewards of the group are normalised in one pool; a
    token's advantage is the sum of the normalised rewards of the steps that end at it or later. After the last step,
    and in the padding, it is 0. `scale` "none" subtracts the mean and divides by nothing. A NaN is a missing reward.

    Raises ValueError if the three do not describe the same completions.
    """
    if not len(step_rewards) == len(step_ends) == len(lengths):
        raise ValueError(
            f"step_rewards, step_ends and lengths describe {len(step_rewards)}, {len(step_ends)} and {len(lengths)} "
            "completions; give one entry per completion in each"
        )
    for i, (rewards, ends, length) in enumerate(zip(step_rewards, step_ends, lengths)):
        if len(rewards) != len(ends):
            raise ValueError(
                f"completion {i} has {len(rewards)} step_rewards and {len(ends)} step_ends; give one end per step"
            )
        if any(not 0 <= end < length for end in ends):
            raise ValueError(f"step_ends[{i}]={list(ends)} must be token indices from 0 to {length - 1}")

    pool = torch.tensor([[float(reward) for rewards in step_rewards for reward in rewards]], dtype=torch.float64)
    result = torch.zeros(len(lengths), max(lengths, default=0), dtype=torch.float64)
    if pool.numel() < 2:
        return result  # one step in the whole group has nothing to be compared with
    normalised = iter(normalise(pool, scale=scale, ddof=ddof, eps=eps)[0].tolist())
    for i, ends in enumerate(step_ends):
        for end in ends:
            result[i, : end + 1] += next(normalised)
    return result


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 0.95) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation: (advantages, returns), both [B, T] float64, not whitened. 1506.02438 eq. 16.

    delta_t = r_t + gamma * V_{t+1} - V_t and A_t = delta_t + gamma * lam * A_{t+1}; returns are A + V. `values[t]` is
    the critic at the position *before* token t was chosen. After a row's last unmasked token the value is 0: the
    episode is over. Tokens outside the mask (padding, or a tool's words between two turns) are stepped over. All
    inputs are [B, T].
    """
    keep = mask.bool()
    r = torch.as_tensor(rewards, dtype=torch.float64).detach().masked_fill(~keep, 0)
    v = torch.as_tensor(values, dtype=torch.float64).detach().masked_fill(~keep, 0)
    advantages = torch.zeros_like(r)
    next_value = next_advantage = torch.zeros_like(r[:, 0])
    for t in reversed(range(r.shape[1])):
        delta = r[:, t] + gamma * next_value - v[:, t]
        advantage = delta + gamma * lam * next_advantage
        next_value = torch.where(keep[:, t], v[:, t], next_value)
        next_advantage = torch.where(keep[:, t], advantage, next_advantage)
        advantages[:, t] = next_advantage * keep[:, t]
    return advantages, advantages + v


def token_rewards(scores: Tensor, mask: Tensor, penalty: Tensor | None = None) -> Tensor:
    """A reward per token [B, T]: the score [B] at each row's last unmasked token, less `penalty` [B, T] everywhere.

    The input of `gae` for PPO (DeepSeekMath eq. 2), and, with values 0 and lam 1, of REINFORCE++'s return-to-go.
    """
    keep = mask.bool()
    after = keep.flip(-1).cumsum(-1).flip(-1)  # [B, T] unmasked tokens from here on
    last = keep & (after == 1)
    rewards = torch.where(last, torch.as_tensor(scores, dtype=torch.float64)[:, None], 0)
    return rewards if penalty is None else rewards - penalty.to(torch.float64).masked_fill(~keep, 0)


def whiten(advantages: Tensor, mask: Tensor, ddof: int = 1, eps: float = 1e-8) -> Tensor:
    """(A - mean) / sqrt(var + eps) over all unmasked tokens, [B, T] -> [B, T] float64; 0 outside the mask.

    What PPO code does after `gae` (TRL, verl: ddof 1), and REINFORCE++ over tokens: long answers then weigh more in
    the mean, so a group whose rewards are all equal gets an advantage that is not 0.
    """
    keep = mask.bool()
    a = torch.as_tensor(advantages, dtype=torch.float64).masked_fill(~keep, 0)
    variance = _std(a, keep, (0, 1), ddof).square()
    return ((a - _mean(a, keep, (0, 1))) * torch.rsqrt(variance + eps)).masked_fill(~keep, 0)


def _whitened_by_token(centred: Tensor, present: Tensor, lengths: Tensor, ddof: int, eps: float) -> Tensor:
    if lengths.shape != centred.shape:
        raise ValueError(
            f"lengths has shape {tuple(lengths.shape)} and rewards {tuple(centred.shape)}; they must agree"
        )
    weight = torch.where(present, lengths.double(), 0)
    mean = (centred * weight).sum() / weight.sum().clamp(min=1)
    std = ((centred - mean).square() * weight).sum().div((weight.sum() - ddof).clamp(min=1)).sqrt() + eps
    if not (present & (centred != mean) & (weight > 0)).any():
        return torch.zeros_like(centred)
    return _in_range(torch.where(present, (centred - mean) / std, 0), std.expand_as(centred), present)


def _rewards(rewards: Tensor) -> tuple[Tensor, Tensor]:
    """(rewards with 0 where missing, present): [P, G] float64 and bool."""
    r = torch.as_tensor(rewards).detach().to(torch.float64)
    if r.ndim != 2 or r.shape[1] == 0:
        raise ValueError(f"rewards has shape {tuple(r.shape)}; give [P, G], one row of G rewards for each prompt")
    if r.isinf().any():
        raise ValueError("rewards holds an infinite value; a reward must be finite, or NaN where it is missing")
    present = ~r.isnan()
    return r.nan_to_num(0.0), present


def _in_range(advantages: Tensor, divisor: Tensor, counts: Tensor) -> Tensor:
    """The advantages, if float64 could hold what they are made of: an infinite std would make them 0 in silence."""
    if not (advantages.isfinite().all() and torch.where(counts, divisor, 0).isfinite().all()):
        raise ValueError(
            "the rewards are too far apart or too close to each other for float64, which cannot hold their spread "
            "(squares end at 1e308 and 1e-308); scale them to a range near 1"
        )
    return advantages


def _check_choices(r: Tensor, baseline: str, scale: str) -> None:
    if baseline == "critic":
        raise ValueError(
            "baseline='critic' needs a value per token, not rewards alone; compute advantages with "
            "advantages.gae(rewards, values, mask) from a value model"
        )
    if baseline == "token_optimal":
        raise ValueError(
            "baseline='token_optimal' needs the energy of each token, not rewards alone; compute advantages with "
            "advantages.optimal_token_baseline(rewards, mask, energy, group)"
        )
    if baseline not in BASELINES:
        raise ValueError(f"baseline={baseline!r} is unknown{nearest(baseline, BASELINES)}")
    if scale != "none" and scale not in SCALES:
        raise ValueError(f"scale={scale!r} is unknown{nearest(scale, ('none', *SCALES))}")
    field = f"baseline={baseline!r}" if baseline in GROUP_BASELINES else f"scale={scale!r}"
    if r.shape[1] == 1 and (baseline in GROUP_BASELINES or scale in GROUP_SCALES):
        raise ValueError(
            f"{field} with group size 1 compares a completion with itself alone; "
            "sample at least 2 completions per prompt, or use baseline='batch_mean' with scale='none' or 'batch_std'"
        )


def _mean_of_others(r: Tensor, present: Tensor) -> Tensor:
    others = (present.sum(1, keepdim=True) - 1).clamp(min=1)
    return (r.sum(1, keepdim=True) - r) / others


# Baselines: (rewards, present) to what is subtracted, broadcastable to [P, G]. leave_one_out is RLOO's.
BASELINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "group_mean": lambda r, present: _mean(r, present, (1,)),
    "leave_one_out": _mean_of_others,
    "batch_mean": lambda r, present: _mean(r, present, (0, 1)),
    "none": lambda r, present: torch.zeros_like(r),
}


def _group_mean(r: Tensor, present: Tensor) -> Tensor:
    if (r < 0).any():
        raise ValueError(
            f"scale='group_mean' divides by the group's mean reward and met a reward of {r.min().item():g}; "
            "MaxRL is for rewards that are never negative (0 and 1)"
        )
    return _mean(r, present, (1,))


# Scales: (rewards, rewards - baseline, present, ddof, eps) to the divisor, eps included, broadcastable to [P, G].
# group_std is GRPO's, batch_std Lite-PPO's, centred_batch_std that of ScaleRL and REINFORCE++-baseline,
# leave_one_out_std that of NeMo-RL, group_mean MaxRL's.
SCALES: dict[str, Callable[[Tensor, Tensor, Tensor, int, float], Tensor]] = {
    "group_std": lambda r, centred, present, ddof, eps: _std(r, present, (1,), ddof) + eps,
    "batch_std": lambda r, centred, present, ddof, eps: _std(r, present, (0, 1), ddof) + eps,
    "centred_batch_std": lambda r, centred, present, ddof, eps: _std(centred, present, (0, 1), ddof) + eps,
    "leave_one_out_std": lambda r, centred, present, ddof, eps: _std_of_others(r, present, ddof, eps),
    "group_mean": lambda r, centred, present, ddof, eps: _group_mean(r, present) + eps,
}


def _std_of_others(r: Tensor, present: Tensor, ddof: int, eps: float) -> Tensor:
    """The std of the group without completion i, plus eps; 1 where those others are all equal. [P, G]"""
    G = r.shape[1]
    others = present[:, None, :] & ~torch.eye(G, dtype=torch.bool, device=r.device)  # [P, G, G]
    repeated = r[:, None, :].expand(-1, G, -1)  # [P, G, G]
    std = _std(repeated, others, (2,), ddof) + eps  # [P, G, 1]
    return torch.where(_all_equal(repeated, others, (2,)), 1.0, std)[..., 0]


def _mean(x: Tensor, present: Tensor, dim: tuple[int, ...]) -> Tensor:
    count = present.sum(dim, keepdim=True).clamp(min=1)
    return torch.where(present, x, 0).sum(dim, keepdim=True) / count


def _std(x: Tensor, present: Tensor, dim: tuple[int, ...], ddof: int) -> Tensor:
    deviation = torch.where(present, x - _mean(x, present, dim), 0)
    count = (present.sum(dim, keepdim=True) - ddof).clamp(min=1)
    return (deviation.square().sum(dim, keepdim=True) / count).sqrt()


def _all_equal(x: Tensor, present: Tensor, dim: tuple[int, ...]) -> Tensor:
    """max == min over what is present; also true where nothing is."""
    highest = torch.where(present, x, -torch.inf).amax(dim, keepdim=True)
    lowest = torch.where(present, x, torch.inf).amin(dim, keepdim=True)
    return highest <= lowest


def _component_weights(weights: Sequence[float] | Tensor | None, r: Tensor) -> Tensor:
    K = r.shape[-1]
    weight = torch.ones(K) if weights is None else torch.as_tensor(weights)
    if weight.shape != (K,):
        raise ValueError(f"weights has shape {tuple(weight.shape)}; give one weight for each of the {K} rewards")
    return weight.to(r)
