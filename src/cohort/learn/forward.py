"""Log-probs of rollout tokens: each prompt once, no padding in the linear layers, never all logits at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cohort.learn.head import head
from cohort.policy.attention import PackedGroups
from cohort.policy.policy import Policy
from cohort.types import Batch

__all__ = ["MicroBatch", "micro_batches", "token_logprobs"]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Some rows of a batch, packed. `picked[i] = (row, column)` names the M tokens whose log-probs are wanted."""

    rows: Tensor  # [b] rows of the batch
    layout: PackedGroups
    picked_row: Tensor  # [M] position in `rows`
    picked_column: Tensor  # [M]
    width: int  # T, as in the batch

    def spread(self, values: Tensor) -> Tensor:
        """`[M]` values of the picked tokens -> `[b, T]`, zero elsewhere. Differentiable."""
        flat = values.new_zeros(len(self.rows) * self.width)
        return flat.index_copy(0, self.picked_row * self.width + self.picked_column, values).view(-1, self.width)


def micro_batches(batch: Batch, wanted: Tensor, tokens: int, device: torch.device) -> Iterator[MicroBatch]:
    """Split the rows that have a `wanted` token (`[B, T]` bool) into packed micro-batches of about `tokens` tokens.

    Rows of a group stay together while they fit, so that its prompt is computed once.
    """
    lengths, owner = batch.lengths.tolist(), batch.group.tolist()
    rows = sorted(wanted.any(1).nonzero()[:, 0].tolist(), key=lambda row: owner[row])
    taken: list[int] = []
    prompts: set[int] = set()
    size = 0
    for row in rows:
        cost = lengths[row] + (0 if owner[row] in prompts else len(batch.prompts[owner[row]]))
        if taken and size + cost > tokens:
            yield _pack(batch, wanted, taken, device)
            taken, prompts, size = [], set(), 0
            cost = lengths[row] + len(batch.prompts[owner[row]])
        taken.append(row)
        prompts.add(owner[row])
        size += cost
    if taken:
        yield _pack(batch, wanted, taken, device)


def _pack(batch: Batch, wanted: Tensor, rows: list[int], device: torch.device) -> MicroBatch:
    index = torch.tensor(rows)
    owners = batch.group[index].tolist()
    prompts = sorted(set(owners))
    place = {prompt: i for i, prompt in enumerate(prompts)}
    lengths = batch.lengths[index].tolist()
    layout = PackedGroups(
        [batch.prompts[p] for p in prompts],
        [batch.tokens[row, :n].tolist() for row, n in zip(rows, lengths, strict=True)],
        [place[p] for p in owners],
        device,
    )
    row, column = wanted[index].nonzero(as_tuple=True)
    return MicroBatch(index.to(device), layout, row.to(device), column.to(device), batch.tokens.shape[1])


def token_logprobs(
    policy: Policy, batch: Batch, micro: MicroBatch, temperature: float, entropy_gradient: bool = False
) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies (nats) of the picked tokens, `[M]` each, float32, of softmax(logits / temperature)."""
    layout = micro.layout
    hidden = policy.hidden(layout.tokens, layout.positions, layout)  # [N, hidden]
    predictors = hidden.index_select(0, layout.predictors(micro.picked_row, micro.picked_column))  # [M, hidden]
    tokens = batch.tokens.to(micro.rows.device)[micro.rows[micro.picked_row], micro.picked_column]  # [M]

    return head(policy, predictors, tokens, temperature, entropy_gradient)
