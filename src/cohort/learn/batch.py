"""From groups to an optimizer batch: all rollout tokens end to end, and the weight of every token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from cohort.algorithms.objectives import Objective, batchwide, mask_truncated, token_weight
from cohort.types import Batch, Group


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
    # [B, T], as the functions of the objective take it
    mask = chosen = rectangle(_end_to_end([rollout.mask for rollout in rollouts], np.bool_), lengths)
    if objective.truncated == "mask":
        mask = mask_truncated(objective, mask, torch.tensor([rollout.finish == "length" for rollout in rollouts]))
    taught = [row for group in groups for row in group.teacher_logprobs]
    return Batch(
        prompts=tuple(group.prompt.tokens for group in groups),
        group=owner,
        tokens=_end_to_end([rollout.tokens for rollout in rollouts], np.int64),
        lengths=lengths,
        mask=flat(mask, lengths),
        sampler_logprobs=_end_to_end([rollout.logprobs for rollout in rollouts], np.float32),
        advantages=_end_to_end([row for group in groups for row in _advantages(group)], np.float32),
        token_weight=flat(token_weight(objective, mask, group=owner, max_tokens=max_tokens), lengths).float(),
        teacher_logprobs=_end_to_end(taught, np.float32) if taught else None,
        versions=torch.tensor([rollout.version for rollout in rollouts]),
        rewards=torch.tensor([r for group in groups for r in group.rewards or (math.nan,) * len(group.rollouts)]),
        observed=~flat(chosen, lengths) if objective.term_of("observation") else None,
    )


def decided(batch: Batch, objective: Objective, now: Tensor | None = None, seed: int = 0) -> Batch:
    """The batch with what is decided over the whole of it, from the log-probs before its first update, or those `now`,
    `[N]`. `seed` is of what is drawn.
    """
    if not objective.is_batchwide:
        return batch
    assert batch.old_logprobs is not None
    assert batch.versions is not None

    def laid_out(values: Tensor | None) -> Tensor | None:
        return None if values is None else rectangle(values, batch.lengths)

    mask = rectangle(batch.mask, batch.lengths)
    old = rectangle(batch.old_logprobs, batch.lengths)
    whole = batchwide(
        objective,
        old if now is None else rectangle(now, batch.lengths),
        old,
        mask,
        rectangle(batch.advantages, batch.lengths),
        sampler_logprobs=laid_out(batch.sampler_logprobs),
        teacher_logprobs=laid_out(batch.teacher_logprobs),
        versions=batch.versions[:, None].expand(mask.shape),
        current_version=batch.version,
        weight=rectangle(batch.token_weight, batch.lengths),
        rewards=batch.rewards,
        group=batch.group,
        observed=laid_out(batch.observed),
        entropy=laid_out(batch.entropy),
        seed=seed,
    )
    return replace(batch, whole=whole.map(lambda found: flat(found, batch.lengths)))


def rectangle(values: Tensor, lengths: Tensor) -> Tensor:
    """Flat values `[N]` of rollouts that have `lengths` `[B]` -> `[B, T]`, one rollout a row, zeros on the right.

    For sums alone: the order in which floating-point numbers are added depends on where they lie, so a sum that is
    taken over a rectangle keeps its last bits only while it is taken over that rectangle.
    """
    inside = _inside(lengths)
    return values.new_zeros(inside.shape).masked_scatter(inside, values)


def flat(values: Tensor, lengths: Tensor) -> Tensor:
    """Undo `rectangle`: `[B, T] -> [N]`."""
    return values[_inside(lengths)]


def _inside(lengths: Tensor) -> Tensor:
    return torch.arange(int(lengths.max())) < lengths[:, None]  # [B, T] bool


def _end_to_end(rows: Sequence[Sequence[float]], dtype: type[np.generic]) -> Tensor:
    return torch.from_numpy(np.concatenate(rows, dtype=dtype, casting="unsafe"))


def _advantages(group: Group) -> Sequence[Sequence[float]]:
    """An advantage for every token of every rollout: its own, or its rollout's."""
    if group.token_advantages:
        return group.token_advantages
    each = group.advantages or (0.0,) * len(group.rollouts)
    return [np.full(len(rollout.tokens), a) for a, rollout in zip(each, group.rollouts, strict=True)]  # type: ignore
