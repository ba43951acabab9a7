"""From scored groups to advantages: per rollout, or per token with a critic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cohort.algorithms.advantages import gae, optimal_token_baseline, pass_at_k, token_rewards, whiten
from cohort.algorithms.credit import by_state
from cohort.algorithms.objectives import Objective
from cohort.frozen_array import FrozenArray
from cohort.learn.batch import flat, rectangle
from cohort.rewards import Combination
from cohort.types import Batch, Disposition, Group, Turn, UserError, content_id


def with_advantages(
    groups: Sequence[Group],
    objective: Objective,
    combination: Combination,
    penalty: Tensor | None = None,
    k: int | None = None,
    found: str = "sample",
) -> list[Group]:
    """The groups with their rollouts' advantages, computed over the whole step in float64, and what they became.

    `combination` is that of the rewards, for GDPO, which normalises what each pays before it adds them. `penalty` is a
    KL in the reward, `[B, T]`, taken off before the baseline. With `k` the advantages are those of pass@k, defined for
    rewards of 0 and 1 only: another reward is refused with a `UserError`. `found` is how groups are found, as
    `rollout.groups` says: `repeats` have advantage 0 and are in no mean and no std.
    """
    if not combination.pays:  # all that is learnt from is a teacher
        return [group.with_(advantages=(0.0,) * len(group.rollouts), disposition="trained") for group in groups]
    again = torch.tensor([repeats(group, found) for group in groups])  # [P, G]
    if found != "sample":  # with fewer than two different members there is nothing to compare
        again |= torch.tensor([len({one.text for one in group.rollouts}) < 2 for group in groups])[:, None]
    if objective.rewards == "normalise_then_sum":
        names, weights = list(combination.weights), list(combination.weights.values())
        paid = [combination.paid(group.scores) for group in groups]
        scores = [list(zip(*(one[name] for name in names), strict=True)) for one in paid]
        rewards = torch.tensor(scores, dtype=torch.float64)  # [P, G, K]
        rewards[again] = math.nan
        advantages = objective.advantages(rewards, weights=weights)
    else:
        rewards = torch.tensor([group.rewards for group in groups], dtype=torch.float64)  # [P, G]
        if penalty is not None:  # never with k, which is for rewards of 0 and 1
            rewards -= penalty.sum(1).view(rewards.shape)
        rewards[again] = math.nan
        by_token = objective.whiten_by == "token"
        lengths = torch.tensor([[sum(r.mask) for r in g.rollouts] for g in groups]) if by_token else None
        advantages = objective.advantages(rewards, lengths=lengths) if k is None else _pass_at_k(rewards, k)
    return [
        group.with_(advantages=tuple(row), disposition=disposition(group, row, objective))
        for group, row in zip(groups, advantages.tolist(), strict=True)
    ]


def with_state_advantages(groups: Sequence[Group], objective: Objective, combination: Combination) -> list[Group]:
    """The groups with an advantage for every token: that of its rollout, and that of its turn among all turns of the
    group that were taken in the same state: after the same words of the environment (GiGPO). The reward is paid at the
    last turn.
    """
    done = []
    for group in with_advantages(groups, objective, combination):
        turns = [rollout.turns for rollout in group.rollouts]
        paid = [[0.0] * (len(of) - 1) + [reward] * bool(of) for of, reward in zip(turns, group.rewards, strict=True)]
        states = [[_state(of, at) for at in range(len(of))] for of in turns]
        o = objective
        steps = by_state(paid, states, [0] * len(turns), o.state_discount, o.ddof, o.eps)
        rows = []
        for rollout, own, values in zip(group.rollouts, group.advantages, steps, strict=True):
            row = np.full(len(rollout.tokens), own)
            for turn, value in zip(rollout.turns, values, strict=True):
                row[turn.start : turn.end] += o.state_weight * value
            rows.append(row)
        done.append(with_rows(group, rows, objective))
    return done


def with_rows(group: Group, rows: Sequence[np.ndarray], objective: Objective) -> Group:
    """The group with these advantages of its tokens; that of a rollout is their mean over the policy's own tokens."""
    own = [row[np.asarray(r.mask, dtype=bool)] for row, r in zip(rows, group.rollouts, strict=True)]
    means = tuple(math.fsum(row) / max(len(row), 1) for row in own)
    became = disposition(group, [a for row in own for a in row.tolist()], objective)
    return group.with_(token_advantages=tuple(map(FrozenArray, rows)), advantages=means, disposition=became)


def _state(turns: Sequence[Turn], at: int) -> str:
    """What a turn was an answer to: the prompt, or what the environment said last."""
    return content_id(*turns[at - 1].observation.messages) if at else ""


def with_optimal_baseline(
    groups: Sequence[Group], objective: Objective, batch: Batch, with_energy: Callable[[Batch], Batch]
) -> list[Group]:
    """The groups with an advantage for every token by the optimal token baseline. `batch` is `collate` of them."""
    batch = with_energy(batch)
    assert batch.energy is not None
    mask, lengths = rectangle(batch.mask, batch.lengths), batch.lengths
    rewards = torch.tensor([r for g in groups for r in g.rewards], dtype=torch.float64)
    found = optimal_token_baseline(rewards, mask, rectangle(batch.energy, lengths), batch.group)
    rows = iter(flat(found, lengths).split(lengths.tolist()))
    return [with_rows(group, [next(rows).numpy() for _ in group.rollouts], objective) for group in groups]


def repeats(group: Group, found: str) -> list[bool]:
    """Which members say what another one says, and are no draws: among draws how often something is said is what the
    policy makes of it, among beams it is nothing. Of beams these are the later ones; the greedy completion is one where
    a draw says the same.
    """
    texts = [rollout.text for rollout in group.rollouts]
    if found == "sample":
        return [False] * len(texts)
    if found == "greedy_plus_sample":
        return [texts[0] in texts[1:], *([False] * (len(texts) - 1))]
    return [text in texts[:i] for i, text in enumerate(texts)]


def _pass_at_k(rewards: Tensor, k: int) -> Tensor:
    try:
        return pass_at_k(rewards, k)
    except ValueError as error:
        raise UserError(f"[objective] pass_at_k = {k}: {error}") from None


@dataclass(frozen=True, slots=True)
class Valued:
    """What the critic learns from: a step's batch, with its values before the update, and the returns."""

    batch: Batch  # with the values
    returns: Tensor  # [N]

    def explained(self) -> float:
        """1 - var(returns - values) / var(returns) over the tokens: 1 for a critic that knows, 0 and less for one that
        knows no more than a constant. NaN where all returns are equal.
        """
        assert self.batch.values is not None
        returns, values = (x[self.batch.mask].double() for x in (self.returns, self.batch.values))
        spread = returns.var(correction=0).item()
        return 1 - (returns - values).var(correction=0).item() / spread if spread else math.nan

    def part(self, index: int, parts: int) -> Valued:
        """The rollouts of the prompts that belong to part `index` of `parts`, the others masked out."""
        prompts = len(self.batch.prompts)
        first, last = prompts * index // parts, prompts * (index + 1) // parts
        inside = (self.batch.group >= first) & (self.batch.group < last)
        mask = self.batch.mask & inside.repeat_interleave(self.batch.lengths)
        return replace(self, batch=replace(self.batch, mask=mask))


def with_token_advantages(
    groups: Sequence[Group],
    objective: Objective,
    batch: Batch,
    with_values: Callable[[Batch], Batch],
    penalty: Tensor | None,
    gamma: float,
    lam: float,
) -> tuple[list[Group], Valued]:
    """The groups with an advantage for every token: GAE over rewards at the last token and KL penalties at each.

    `batch` is `collate` of the groups; `penalty` is a KL in the reward, `[B, T]`. With `scale = "centred_batch_std"`
    advantages are whitened over the tokens.
    """
    scores = torch.tensor([r for g in groups for r in g.rewards], dtype=torch.float64)
    # A rollout without a reward is no evidence: advantage 0, and nothing for the critic to learn.
    batch = replace(batch, mask=batch.mask & ~scores.isnan().repeat_interleave(batch.lengths))
    scores = scores.nan_to_num(0.0)
    batch = with_values(batch)
    assert batch.values is not None
    mask, lengths = rectangle(batch.mask, batch.lengths), batch.lengths
    values = rectangle(batch.values, lengths)
    advantages, returns = gae(token_rewards(scores, mask, penalty), values, mask, gamma, lam)
    if objective.scale == "centred_batch_std":
        advantages = whiten(advantages, mask, objective.ddof, objective.eps)
    rows = iter(flat(advantages, lengths).split(lengths.tolist()))
    done = [
        with_rows(group, [next(rows).numpy() for _ in group.rollouts], objective).with_(disposition="trained")
        for group in groups
    ]
    return done, Valued(batch, flat(returns, lengths))


def disposition(group: Group, advantages: Sequence[float], objective: Objective) -> Disposition:
    """What becomes of a group with these advantages."""
    if objective.truncated == "mask" and all(r.finish == "length" for r in group.rollouts):
        return "truncated"
    if all(a == 0 for a in advantages) and not objective.trains_without_signal:
        return "zero_std"
    return "trained"
