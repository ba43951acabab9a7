"""Log-probs of rollout tokens: each prompt once, no padding in the linear layers, never all logits at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cohort.learn.head import head
from cohort.policy.attention import PackedGroups, places
from cohort.policy.policy import Policy
from cohort.types import Batch

__all__ = ["MicroBatch", "micro_batches", "token_logprobs"]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """b rollouts of a batch, packed, and the M tokens of them whose log-probs are wanted."""

    layout: PackedGroups
    picked: Tensor  # [M] where the wanted tokens are in the batch; on the CPU, as the batch is
    tokens: Tensor  # [M] what they are
    row: Tensor  # [M] which of the b rollouts each belongs to
    column: Tensor  # [M] which of that rollout's tokens it is
    shape: tuple[int, int]  # b, and T: the longest rollout of the whole batch

    def take(self, values: Tensor) -> Tensor:
        """Values `[N]` of the batch's tokens -> `[b, T]`, zero outside the wanted ones."""
        return self.spread(values[self.picked].to(self.row.device))

    def spread(self, values: Tensor) -> Tensor:
        """`[M]` values of the wanted tokens -> `[b, T]`, zero elsewhere. Differentiable."""
        rows, width = self.shape
        return values.new_zeros(rows * width).index_copy(0, self.row * width + self.column, values).view(rows, width)


def micro_batches(batch: Batch, wanted: Tensor, tokens: int, device: torch.device) -> Iterator[MicroBatch]:
    """Split the rollouts that have a `wanted` token (`[N]` bool) into packed micro-batches of about `tokens` tokens.

    Rollouts of a group stay together while they fit, so that its prompt is computed once.
    """
    lengths, owner = batch.lengths.tolist(), batch.group.tolist()
    with_wanted = torch.repeat_interleave(batch.lengths)[wanted].unique().tolist()
    taken: list[int] = []
    prompts: set[int] = set()
    size = 0
    for row in sorted(with_wanted, key=lambda row: owner[row]):
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
    prompts, place = batch.group[index].unique(return_inverse=True)
    starts, lengths = (batch.lengths.cumsum(0) - batch.lengths)[index], batch.lengths[index]
    row, column = places(lengths)
    everything = starts[row] + column  # where the tokens of these rollouts are in the batch
    layout = PackedGroups(
        [batch.prompts[p] for p in prompts.tolist()],
        batch.tokens[everything].split(lengths.tolist()),
        place.tolist(),
        device,
    )
    kept = wanted[everything]
    picked = everything[kept]
    return MicroBatch(
        layout,
        picked,
        tokens=batch.tokens[picked].to(device),
        row=row[kept].to(device),
        column=column[kept].to(device),
        shape=(len(rows), int(batch.lengths.max())),
    )


def token_logprobs(
    policy: Policy, micro: MicroBatch, temperature: float, entropy_gradient: bool = False
) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies (nats) of the wanted tokens, `[M]` each, float32, of softmax(logits / temperature)."""
    layout = micro.layout
    hidden = policy.hidden(layout.tokens, layout.positions, layout)  # [N, hidden]
    predictors = hidden.index_select(0, layout.predictors(micro.row, micro.column))  # [M, hidden]
    return head(policy, predictors, micro.tokens, temperature, entropy_gradient)
