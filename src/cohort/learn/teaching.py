"""Teachers that are models here: what they give the tokens of a batch, and how far the student is from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from cohort.algorithms import distill
from cohort.learn.forward import MicroBatch, forward, in_chunks
from cohort.policy.policy import Policy
from cohort.settings import Divergence
from cohort.types import Batch


class Teacher(Protocol):
    """A model that says how likely it finds what the student wrote."""

    def active(self) -> AbstractContextManager[Policy]:
        """The policy to ask, for as long as the context lasts."""

    @property
    def head(self) -> Policy:
        """The policy whose head turns final states into logits; it needs no context."""


def of_teachers(batch: Batch) -> Iterator[tuple[int, Batch, Tensor]]:
    """Each teacher that speaks of a batch: its number, the batch as it sees it, and the tokens `[N]` it speaks of."""
    lesson = batch.lesson
    assert lesson is not None
    seen = replace(batch, prompts=lesson.prompts, group=lesson.group)
    by_token = lesson.teacher.repeat_interleave(batch.lengths)  # [N]
    for number in lesson.teacher.unique().tolist():
        if number >= 0 and bool((wanted := batch.mask & (by_token == number)).any()):
            yield number, seen, wanted


@torch.no_grad()
def ask(teacher: Teacher, batch: Batch, wanted: Tensor, tokens: int, temperature: float) -> tuple[Tensor, ...]:
    """What a teacher says of the `wanted` tokens `[N]` of a batch, in their order: log-probs `[n]`, whether each is the
    likeliest `[n]`, and the final states that predict them `[n, width]`.
    """
    order = wanted.cumsum(0) - 1  # where each wanted token is among them
    count = int(wanted.sum())
    found, first = torch.zeros(count), torch.zeros(count, dtype=torch.bool)
    kept: Tensor | None = None
    with teacher.active() as policy:

        def said(states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            logs = (policy.logits(states) / temperature).log_softmax(-1)  # [m, V]
            return logs.gather(-1, targets[:, None])[:, 0], logs.argmax(-1) == targets

        for micro, states in forward(policy, batch, wanted, tokens):
            at = order[micro.picked]
            logprobs, likeliest = in_chunks(said, policy.vocabulary, states, micro.tokens)
            found[at], first[at] = logprobs.cpu(), likeliest.cpu()
            if kept is None:
                kept = torch.zeros(count, states.shape[1], dtype=states.dtype)
            kept[at] = states.cpu()
    return found, first, torch.zeros(count, 0) if kept is None else kept


@dataclass(frozen=True, slots=True)
class Teaching:
    """A divergence from teachers over the whole vocabulary, differentiated as it stands."""

    table: Divergence
    teachers: Callable[[], Sequence[Any]]  # models all of them: no server gives its logits
    temperature: float

    def divergence(self, policy: Policy, batch: Batch, micro: MicroBatch, states: Tensor) -> Tensor:
        """Of the tokens of a micro-batch that have these final `states` `[M, hidden]`: `[M]`, 0 where none speaks.

        The logits of both are made in chunks of tokens, which are computed again in the backward pass.
        """
        out = states.new_zeros(len(states), dtype=torch.float32)
        assert batch.lesson is not None
        for number, _, wanted in of_teachers(batch):
            there = wanted[micro.picked].nonzero()[:, 0]
            if not len(there):
                continue
            place = (wanted.cumsum(0) - 1)[micro.picked[there]]
            taught = batch.lesson.states[number][place].to(states.device)
            there = there.to(states.device)
            (found,) = in_chunks(
                self._of(policy, self.teachers()[number].head), policy.vocabulary, states[there], taught
            )
            out = out.index_copy(0, there, found)
        return out

    def _of(self, policy: Policy, teacher: Policy) -> Callable[[Tensor, Tensor], tuple[Tensor]]:
        table, width = self.table, min(policy.vocabulary, teacher.vocabulary)  # a wider one is padded

        def of(states: Tensor, taught: Tensor) -> tuple[Tensor]:
            with torch.no_grad():
                theirs = teacher.logits(taught)[:, :width] / self.temperature
            own = policy.logits(states)[:, :width] / self.temperature
            return (distill.kl(own, theirs, table.divergence, table.beta, table.top_k, table.rest),)

        return of
