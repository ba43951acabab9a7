"""Log-probs of rollout tokens: each prompt once, no padding in the linear layers, never all logits at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cohort.kernels.functions import logprob_gradient, logprobs, product, rounded, weight_gradient
from cohort.learn.routing import Routed, Routers, layers
from cohort.policy.attention import PackedGroups, places
from cohort.policy.policy import Policy
from cohort.policy.torch_compile import Compiled
from cohort.types import Batch

LOGITS_AT_ONCE = 1 << 24  # float32 logits held for the backward pass: 64 MiB; beyond it chunks are recomputed


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """b rollouts of a batch, packed, and the M tokens of them whose log-probs are wanted."""

    layout: PackedGroups
    picked: Tensor  # [M] where the wanted tokens are in the batch; on the CPU, as the batch is
    tokens: Tensor  # [M] what they are
    row: Tensor  # [M] which of the b rollouts each belongs to
    column: Tensor  # [M] which of that rollout's tokens it is
    shape: tuple[int, int]  # b, and T: the longest rollout of the whole batch
    routed: tuple[Routed, ...] = ()  # what each router said to the tokens that predict the wanted ones

    def take(self, values: Tensor) -> Tensor:
        """Values `[N]` of the batch's tokens -> `[b, T]`, zero outside the wanted ones."""
        return self.spread(values[self.picked].to(self.row.device))

    def spread(self, values: Tensor) -> Tensor:
        """`[M]` values of the wanted tokens -> `[b, T]`, zero elsewhere. Differentiable."""
        rows, width = self.shape
        return values.new_zeros(rows * width).index_copy(0, self.row * width + self.column, values).view(rows, width)


def forward(
    policy: Policy, batch: Batch, wanted: Tensor, tokens: int, routers: Routers | None = None
) -> Iterator[tuple[MicroBatch, Tensor]]:
    """Run the rollouts that have a `wanted` token (`[N]` bool) through the policy's body, in packed micro-batches of
    about `tokens` tokens. Yields each with the final hidden states that predict its wanted tokens, `[M, hidden]`.

    Rollouts of a group stay together while they fit, so that its prompt is computed once.
    """
    starts, longest = batch.lengths.cumsum(0) - batch.lengths, int(batch.lengths.max())
    there = torch.repeat_interleave(batch.lengths)[wanted].unique().tolist()
    passes = list((_split if policy.generic is None else _split_whole)(batch, there, tokens))
    idle = 0 if policy.ranks is None else policy.ranks.most(len(passes)) - len(passes)
    for rows in passes:
        index = torch.tensor(rows)
        prompts, place = batch.group[index].unique(return_inverse=True)
        lengths = batch.lengths[index]
        row, column = places(lengths)
        everything = starts[index][row] + column  # where the tokens of these rollouts are in the batch
        kept = wanted[everything]
        pieces, part, within = lengths, row, column
        if batch.rows:  # a rollout of several rows is laid out as that many, each behind the prompt
            own = [batch.rows[rollout] for rollout in rows]
            pieces = torch.tensor([length for of in own for length in of])
            place = place.repeat_interleave(torch.tensor([len(of) for of in own]))
            part, within = places(pieces)
        layout = PackedGroups(
            [batch.prompts[p] for p in prompts.tolist()],
            batch.tokens[everything].split(pieces.tolist()),
            place.tolist(),
            policy.device,
        )
        part, within = part[kept].to(policy.device), within[kept].to(policy.device)
        picked = everything[kept]
        row, column, targets = (x.to(policy.device) for x in (row[kept], column[kept], batch.tokens[picked]))
        watched: contextlib.AbstractContextManager[list[Tensor]]
        watched = routers.watched() if routers else contextlib.nullcontext([])
        with watched as noted:
            hidden = policy.hidden(layout.tokens, layout.positions, layout)
        at = layout.predictors(part, within)
        micro = MicroBatch(layout, picked, targets, row, column, (len(rows), longest), layers(noted, at))
        yield micro, hidden.index_select(0, at)
    for _ in range(idle):
        policy.ranks.idle(policy)


def _split(batch: Batch, rows: list[int], tokens: int) -> Iterator[list[int]]:
    lengths, owner = batch.lengths.tolist(), batch.group.tolist()
    taken: list[int] = []
    prompts: set[int] = set()
    size = 0
    for row in sorted(rows, key=lambda row: owner[row]):
        cost = lengths[row] + (0 if owner[row] in prompts else len(batch.prompts[owner[row]]))
        if taken and size + cost > tokens:
            yield taken
            taken, prompts, size = [], set(), 0
            cost = lengths[row] + len(batch.prompts[owner[row]])
        taken.append(row)
        prompts.add(owner[row])
        size += cost
    if taken:
        yield taken


def _split_whole(batch: Batch, rows: list[int], tokens: int) -> Iterator[list[int]]:
    """The same where every row is computed whole, its prompt with it, and padded: rows of like length together."""
    whole = {row: len(batch.prompts[int(batch.group[row])]) + int(batch.lengths[row]) for row in rows}
    taken: list[int] = []
    for row in sorted(rows, key=lambda row: whole[row]):  # the row that comes next is the longest
        if taken and (len(taken) + 1) * whole[row] > tokens:
            yield taken
            taken = []
        taken.append(row)
    if taken:
        yield taken


@torch.no_grad()
def batch_logprobs(
    policy: Policy,
    batch: Batch,
    wanted: Tensor,
    tokens: int,
    temperature: float,
    entropy_gradient: bool = False,
    entropies: Tensor | None = None,
) -> Tensor:
    """`[N]` float32 log-probs of the `wanted` tokens `[N]` of a batch at a temperature, 0 at the others, in passes of
    about `tokens` tokens. With `entropy_gradient` the head is the one that has one, whose last bits are others.
    `entropies` `[N]` is filled with those of the same tokens.
    """
    out = torch.zeros(batch.tokens.shape, dtype=torch.float32)
    for micro, states in forward(policy, batch, wanted, tokens):
        found, entropy = head(policy, states, micro.tokens, temperature, entropy_gradient)
        out[micro.picked] = found.cpu()
        if entropies is not None:
            entropies[micro.picked] = entropy.cpu()
    return out


def head(
    policy: Policy, states: Tensor, targets: Tensor, temperature: float, entropy_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Log-probs of `targets` `[M]` and entropies (nats), `[M]` each, float32, of softmax(logits / temperature), where
    the logits are those of `states` `[M, hidden]`.

    When there are several chunks of tokens, each is recomputed in the backward pass: `[M, vocabulary]` is never held.
    """
    if policy.fused and not entropy_gradient:
        output = policy.model.get_output_embeddings()
        found, entropy = _Fused.apply(rounded(states), output.weight, rounded(targets), temperature)
        return found[: len(states)], entropy[: len(states)]

    def plain(states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = _of_logits(
            states.device, policy.logits(states), targets, temperature, entropy_gradient
        )
        return found

    found, entropy = in_chunks(plain, policy.vocabulary, states, targets)
    return found, entropy


def of_logits(logits: Tensor, targets: Tensor, temperature: float, entropy_gradient: bool) -> tuple[Tensor, Tensor]:
    """See `head`: of float32 logits `[m, V]` and targets `[m]`."""
    found = (logits / temperature).log_softmax(-1)
    known = found if entropy_gradient else found.detach()
    return found.gather(-1, targets[:, None])[:, 0], -(known.exp() * known).sum(-1)


# On a GPU few passes over the logits, forward and backward, in which no softmax is written out.
_of_logits = Compiled(of_logits, of_logits, "the compiled head")


def in_chunks(function: Callable[..., tuple[Tensor, ...]], vocabulary: int, *tensors: Tensor) -> tuple[Tensor, ...]:
    """`function` of tensors `[M, ...]`, which makes logits of their rows, in chunks of so many rows as may have some at
    once. When there are several chunks, each is recomputed in the backward pass.
    """
    chunk = max(1, LOGITS_AT_ONCE // vocabulary)
    pieces = list(zip(*(one.split(chunk) for one in tensors), strict=True))
    if len(pieces) == 1 or not torch.is_grad_enabled():
        parts = [function(*piece) for piece in pieces]
    else:
        parts = [checkpoint(function, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces]
    return tuple(torch.cat(x) for x in zip(*parts, strict=True))


class _Fused(torch.autograd.Function):
    """`head` for a plain linear head: the softmax is never written out, its gradient takes the place of the logits."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        chunk = max(1, LOGITS_AT_ONCE // len(weight))
        found, entropy, logsumexp = (states.new_empty(len(states)) for _ in range(3))
        logits = None
        for at in range(0, len(states), chunk):
            part = slice(at, at + chunk)
            logits = product(states[part], weight)
            found[part], entropy[part], logsumexp[part] = logprobs(logits, targets[part], temperature)
        ctx.save_for_backward(states, weight, targets, logsumexp)
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.logits = logits if len(states) <= chunk else None
        ctx.mark_non_differentiable(entropy)
        return found, entropy

    @staticmethod
    def backward(ctx: Any, flow: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, targets, logsumexp = ctx.saved_tensors
        flow = flow.contiguous()
        to_states = torch.empty_like(states)
        to_weight: Tensor | None = None
        for at in range(0, len(states), ctx.chunk):
            part = slice(at, at + ctx.chunk)
            logits = ctx.logits if ctx.logits is not None else product(states[part], weight)
            ctx.logits = None  # its place is taken by the gradient
            logprob_gradient(logits, targets[part], ctx.temperature, logsumexp[part], flow[part])
            if ctx.needs_input_grad[0]:
                to_states[part] = product(logits, weight.t())
            if ctx.needs_input_grad[1]:
                share = weight_gradient(logits, states[part])
                to_weight = share if to_weight is None else to_weight.add_(share)
        return to_states, to_weight, None, None
