"""From groups to an optimizer batch: tensors, and the weight of every token."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from cohort.algorithms.objectives import Objective, mask_truncated, token_weight
from cohort.types import Batch, Group

__all__ = ["collate", "split"]


def split(groups: Sequence[Group], parts: int) -> list[Sequence[Group]]:
    """The groups in `parts` runs of nearly equal size, whole groups each, empty ones left out."""
    bounds = [len(groups) * i // parts for i in range(parts + 1)]
    return [groups[a:b] for a, b in pairwise(bounds) if b > a]


def collate(groups: Sequence[Group], objective: Objective, max_tokens: int) -> Batch:
    """One optimizer batch of all rollouts of `groups`; `token_weight` is computed here, over the whole of it.

    Groups that have no advantages yet get zeros.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    owner = torch.tensor([i for i, group in enumerate(groups) for _ in group.rollouts])  # [B]
    lengths = torch.tensor([len(rollout.tokens) for rollout in rollouts])  # [B]
    width = int(lengths.max())
    mask = _rows([rollout.mask for rollout in rollouts], width, torch.bool)
    cut_off = torch.tensor([rollout.finish == "length" for rollout in rollouts])
    mask = mask_truncated(objective, mask, cut_off)
    advantages = [row for group in groups for row in _advantage_rows(group)]
    return Batch(
        prompts=tuple(group.prompt.tokens for group in groups),
        group=owner,
        tokens=_rows([rollout.tokens for rollout in rollouts], width, torch.long),
        lengths=lengths,
        mask=mask,
        sampler_logprobs=_rows([rollout.logprobs for rollout in rollouts], width, torch.float32),
        advantages=_rows(advantages, width, torch.float32),
        token_weight=token_weight(objective, mask, group=owner, max_tokens=max_tokens).float(),
    )


def _advantage_rows(group: Group) -> Sequence[Sequence[float]]:
    """An advantage for every token of every rollout: its own, or its rollout's."""
    if group.token_advantages:
        return group.token_advantages
    each = group.advantages or (0.0,) * len(group.rollouts)
    return [(a,) * len(rollout.tokens) for a, rollout in zip(each, group.rollouts, strict=True)]


def _rows(rows: Sequence[Sequence[float]], width: int, dtype: torch.dtype) -> torch.Tensor:
    """Ragged rows -> `[B, width]`, padded with zeros on the right."""
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=dtype)
