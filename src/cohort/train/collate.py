"""From scored groups to an optimizer batch: advantages, dispositions, tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch

from cohort.algorithms.objectives import Objective, mask_truncated, token_weight
from cohort.types import Batch, Group

__all__ = ["collate", "has_signal", "split", "with_advantages"]


def has_signal(group: Group) -> bool:
    """Whether the accuracy differs inside the group (scores that do not apply are left out)."""
    known = [a for a in group.accuracy if not math.isnan(a)]
    return len(known) > 1 and max(known) != min(known)


def with_advantages(groups: Sequence[Group], objective: Objective) -> list[Group]:
    """The groups with their rollouts' advantages, computed over the whole step in float64, and what they became."""
    size = max(len(group.rewards) for group in groups)
    rewards = torch.tensor(
        [[*group.rewards, *[math.nan] * (size - len(group.rewards))] for group in groups], dtype=torch.float64
    )  # [P, G]
    advantages = objective.advantages(rewards).tolist()
    return [
        group.with_(advantages=tuple(row[: len(group.rewards)]), disposition=_disposition(group, row, objective))
        for group, row in zip(groups, advantages, strict=True)
    ]


def _disposition(group: Group, advantages: Sequence[float], objective: Objective) -> str:
    if objective.truncated == "mask" and all(r.finish == "length" for r in group.rollouts):
        return "truncated"
    if all(a == 0 for a in advantages) and not objective.trains_without_signal:
        return "zero_std"
    return "trained"


def split(groups: Sequence[Group], parts: int) -> list[Sequence[Group]]:
    """The groups in `parts` runs of nearly equal size, whole groups each, empty ones left out."""
    bounds = [len(groups) * i // parts for i in range(parts + 1)]
    return [groups[a:b] for a, b in pairwise(bounds) if b > a]


def collate(groups: Sequence[Group], objective: Objective, max_tokens: int) -> Batch:
    """One optimizer batch of all rollouts of `groups`; `token_weight` is computed here, over the whole of it."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    owner = torch.tensor([i for i, group in enumerate(groups) for _ in group.rollouts])  # [B]
    lengths = torch.tensor([len(rollout.tokens) for rollout in rollouts])  # [B]
    width = int(lengths.max())
    mask = _rows([rollout.mask for rollout in rollouts], width, torch.bool)
    cut_off = torch.tensor([rollout.finish == "length" for rollout in rollouts])
    mask = mask_truncated(objective, mask, cut_off)
    advantages = torch.tensor([a for group in groups for a in group.advantages], dtype=torch.float32)  # [B]
    return Batch(
        prompts=tuple(group.prompt.tokens for group in groups),
        group=owner,
        tokens=_rows([rollout.tokens for rollout in rollouts], width, torch.long),
        lengths=lengths,
        mask=mask,
        sampler_logprobs=_rows([rollout.logprobs for rollout in rollouts], width, torch.float32),
        advantages=advantages[:, None].expand(-1, width),
        token_weight=token_weight(objective, mask, group=owner, max_tokens=max_tokens).float(),
    )


def _rows(rows: Sequence[Sequence[float]], width: int, dtype: torch.dtype) -> torch.Tensor:
    """Ragged rows -> `[B, width]`, padded with zeros on the right."""
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=dtype)
