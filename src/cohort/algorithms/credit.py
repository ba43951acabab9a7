"""Advantages that differ between the tokens, the steps or the roles of an episode. All of them are float64.

A NaN reward is a missing one: it is in no mean and no std, and its advantage is 0. `advantages` has these functions
under their names, too.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor


def optimal_token_baseline(
    rewards: Tensor, mask: Tensor, energy: Tensor, group: Tensor | None = None, eps: float = 1e-8
) -> Tensor:
    """Rewards [B] or [B, T] to advantages [B, T] by a baseline for each position: 2602.07078.

    A_t = G_t - B_t, G the reward-to-go of a completion (with [B] its reward at every token), B_t = sum_i G W / (sum_i W
    + eps) over the completions of the group [B] (None: one group) that still have a token at position t, and W the sum
    of `energy` [B, T] up to there: |grad log pi|^2 in logits, 1 - 2 p + sum_v p^2, times the square of a mismatch
    weight where there is one. Positions count the unmasked tokens alone. Where a single completion is left its
    baseline is 0. 0 outside the mask.

    Raises ValueError for tensors of other shapes.
    """
    keep = mask.bool()
    B, T = keep.shape
    r = torch.as_tensor(rewards).detach().to(torch.float64)
    if tuple(r.shape) not in ((B,), (B, T)) or energy.shape != mask.shape:
        raise ValueError(
            f"rewards has shape {tuple(r.shape)}, energy {tuple(energy.shape)} and mask {tuple(mask.shape)}; give "
            f"rewards [{B}] or [{B}, {T}], energy as mask"
        )
    owner = torch.zeros(B, dtype=torch.long) if group is None else torch.as_tensor(group)
    if owner.shape != (B,):
        raise ValueError(f"group has shape {tuple(owner.shape)}; give one per row, [{B}]")
    _, owner = torch.unique(owner, return_inverse=True)
    missing = r.isnan() if r.ndim == 1 else (r.isnan() & keep).any(1)  # [B]
    r = r.nan_to_num(0.0)

    order = (~keep).to(torch.int8).argsort(dim=1, stable=True)  # own tokens to the left
    there = keep.gather(1, order)
    W = energy.detach().double().gather(1, order).masked_fill(~there, 0).cumsum(1)
    if r.ndim == 1:
        to_go = r[:, None].expand(B, T)
    else:
        to_go = r.gather(1, order).masked_fill(~there, 0).flip(1).cumsum(1).flip(1)
    alive = (there & ~missing[:, None]).double()

    def over_group(x: Tensor) -> Tensor:
        sums = x.new_zeros(int(owner.max()) + 1 if B else 0, T).index_add(0, owner, x * alive)
        return sums[owner]

    baseline = over_group(to_go * W) / (over_group(W) + eps)
    several = over_group(torch.ones_like(W)) > 1
    packed = (to_go - torch.where(several, baseline, 0)) * alive
    return torch.zeros_like(packed).scatter(1, order, packed)


def gigpo(
    rewards: Sequence[Sequence[float]],
    states: Sequence[Sequence[Hashable]],
    group: Sequence[Hashable] | None = None,
    weight: float = 1.0,
    discount: float = 0.95,
    ddof: int = 1,
    eps: float = 1e-6,
) -> list[Tensor]:
    """An advantage for each step of each episode, [steps] each: GiGPO (2505.10978).

    `rewards[e][t]` is what step t of episode e was paid, `states[e][t]` the state in which it was taken. The advantage
    is that of the episode's whole return among the episodes of its `group` (None: one group), plus `weight` times that
    of the step's discounted return among all steps that were taken in the same state of the same group. A state met
    once, and returns that are all equal, add 0.

    Raises ValueError where the three do not describe the same steps.
    """
    owner = [0] * len(rewards) if group is None else list(group)
    if not [len(row) for row in rewards] == [len(row) for row in states] or len(owner) != len(rewards):
        raise ValueError("rewards, states and group must describe the same episodes and steps")
    of_episode = among([float(sum(row)) for row in rewards], owner, ddof, eps)
    of_steps = by_state(rewards, states, owner, discount, ddof, eps)
    return [
        torch.tensor([whole + weight * step for step in steps], dtype=torch.float64)
        for whole, steps in zip(of_episode, of_steps)
    ]


def by_state(
    rewards: Sequence[Sequence[float]],
    states: Sequence[Sequence[Hashable]],
    group: Sequence[Hashable],
    discount: float,
    ddof: int,
    eps: float,
) -> list[list[float]]:
    """The part of `gigpo` that compares the discounted returns of steps that were taken in the same state."""
    returns = []
    for row in rewards:
        ahead, of = 0.0, []
        for reward in reversed(row):
            ahead = float(reward) + discount * ahead
            of.append(ahead)
        returns += of[::-1]
    keys = [(of, state) for of, row in zip(group, states) for state in row]
    found = iter(among(returns, keys, ddof, eps))
    return [[next(found) for _ in row] for row in rewards]


def among(values: Sequence[float], keys: Sequence[Any], ddof: int = 1, eps: float = 1e-6) -> list[float]:
    """(value - mean) / (std + eps) among the values of the same key; 0 where all of them are equal."""
    found = [0.0] * len(values)
    for places in _places(keys, values).values():
        x = torch.tensor([values[at] for at in places], dtype=torch.float64)
        if x.max() > x.min():
            for at, a in zip(places, ((x - x.mean()) / (x.std(correction=ddof) + eps)).tolist()):
                found[at] = a
    return found


def hierarchical(rewards: Tensor, group: Sequence[Hashable]) -> Tensor:
    """r - the mean of all with the same key, [B] -> [B]; 0 where there is one. prime-rl's hierarchical GRPO: the key of
    solvers is (role, episode), that of proposers (role, prompt).

    Raises ValueError unless there is a key for each reward.
    """
    r = torch.as_tensor(rewards).detach().to(torch.float64)
    if r.ndim != 1 or len(group) != len(r):
        raise ValueError(f"rewards has shape {tuple(r.shape)} and group {len(group)} keys; give rewards [B] and B keys")
    found = torch.zeros_like(r)
    for places in _places(group, r.tolist()).values():
        found[places] = r[places] - r[places].mean()
    return found


def role_baseline(
    rewards: Sequence[float] | Tensor,
    roles: Sequence[Hashable],
    decay: float = 0.95,
    state: Mapping[Hashable, float] | None = None,
) -> tuple[Tensor, dict[Hashable, float]]:
    """r - b_role of each reward in turn, and then b_role <- decay * b_role + (1 - decay) * r: role-conditioned
    advantage estimation (SPIRAL 2506.24119). `roles` are any keys, such as (environment, role).

    Baselines begin at `state`, or 0, without a correction for it, so that the first rewards are nearly raw. Returns the
    advantages [B] and the baselines after them, the `state` of the next call. The order counts.

    Raises ValueError unless there is a role for each reward, and 0 <= decay <= 1.
    """
    r = [float(one) for one in rewards]
    if len(r) != len(roles) or not 0 <= decay <= 1:
        raise ValueError(
            f"{len(r)} rewards, {len(roles)} roles, decay={decay!r}: give a role each, and a decay of 0 to 1"
        )
    kept: MutableMapping[Hashable, float] = dict(state or {})
    found = []
    for reward, role in zip(r, roles):
        before, missing = kept.get(role, 0.0), math.isnan(reward)
        found.append(0.0 if missing else reward - before)
        kept[role] = before if missing else decay * before + (1 - decay) * reward
    return torch.tensor(found, dtype=torch.float64), dict(kept)


def _places(keys: Sequence[Any], values: Sequence[float]) -> dict[Any, list[int]]:
    """Where the values of each key are, missing ones left out."""
    places: dict[Any, list[int]] = {}
    for at, key in enumerate(keys):
        if not math.isnan(values[at]):
            places.setdefault(key, []).append(at)
    return places
