"""A batch in parts, one for each rank of the learner, and what the ranks say of theirs as that of the whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from cohort.types import Batch

OF_ROWS = ("lengths", "versions", "rewards")  # [B]
SAID = ("old_logprobs", "ref_logprobs", "energy", "entropy")  # [N], that a score adds


def parts(batch: Batch, count: int) -> list[list[int]]:
    """The prompts of `count` parts that have nearly equal numbers of tokens: the largest group goes to the part that
    has least. A part may be empty.
    """
    tokens = torch.zeros(len(batch.prompts), dtype=torch.long).index_add_(0, batch.group, batch.lengths)
    cost = [len(prompt) + int(own) for prompt, own in zip(batch.prompts, tokens, strict=True)]
    found, load = [list[int]() for _ in range(count)], [0] * count
    for prompt in sorted(range(len(cost)), key=lambda one: -cost[one]):
        least = min(range(count), key=lambda part: load[part])
        found[least].append(prompt)
        load[least] += cost[prompt]
    return [sorted(one) for one in found]


def part(batch: Batch, prompts: Sequence[int]) -> Batch:
    """The rollouts of some prompts. Without any, those of the first, of which nothing counts."""
    if not prompts:
        idle = part(batch, [0])
        nothing = torch.zeros_like(idle.mask)
        observed = None if idle.observed is None else nothing
        return replace(idle, mask=nothing, token_weight=torch.zeros_like(idle.token_weight), observed=observed)
    new = torch.full((len(batch.prompts),), -1)
    new[list(prompts)] = torch.arange(len(prompts))
    rows = (new[batch.group] >= 0).nonzero()[:, 0]
    tokens = _tokens(batch, rows)
    changes: dict[str, Any] = {"prompts": tuple(batch.prompts[one] for one in prompts), "group": new[batch.group[rows]]}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor) and field.name != "group":
            changes[field.name] = value[rows if field.name in OF_ROWS else tokens]
    whole = None if batch.whole is None else batch.whole.map(lambda found: found[tokens])
    return replace(batch, **changes, whole=whole)


def joined(batch: Batch, prompts: Sequence[Sequence[int]], said: Sequence[Batch]) -> Batch:
    """The batch with what was said of its parts."""
    changes: dict[str, Any] = {}
    for own, part_of in zip(prompts, said, strict=True):
        tokens = _tokens(batch, torch.isin(batch.group, torch.tensor(list(own))).nonzero()[:, 0])
        for name in SAID if own else ():
            if (value := getattr(part_of, name)) is not None:
                changes.setdefault(name, torch.zeros(batch.tokens.shape))[tokens] = value
    return replace(batch, **changes)


def _tokens(batch: Batch, rows: Tensor) -> Tensor:
    """Where the tokens of some rollouts are."""
    kept = torch.zeros(len(batch.lengths), dtype=torch.bool)
    kept[rows] = True
    return kept.repeat_interleave(batch.lengths).nonzero()[:, 0]
