"""Every token of a recorded group by the weights that learnt from it: what no run writes down token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cohort.algorithms.losses import SURROGATES, Tokens
from cohort.policy.policy import Policy
from cohort.train.grpo.learning import Learning
from cohort.train.replay.advantages import bare
from cohort.train.replay.opened import Recorded
from cohort.train.replay.policy import Damaged, open_at, recomputed
from cohort.types import Group, UserError


@dataclass(frozen=True, slots=True)
class MemberTokens:
    """The tokens of one completion, `[T]` each; None where the policy did not choose the token.

    `learner` and `entropy` are of the weights before the update of the step, at the temperature of sampling; `after` is
    the log-prob by the weights after the update, None in all where the step learnt nothing; `clipped` says which tokens
    are past the clip then, so that another update on the batch would not push them on.
    """

    member: int
    sampler: tuple[float | None, ...]
    learner: tuple[float | None, ...]
    entropy: tuple[float | None, ...]
    after: tuple[float | None, ...]
    clipped: tuple[bool, ...]


def computable(recorded: Recorded) -> list[int]:
    """The steps before which the policy is stored, the first one among them."""
    return [step + 1 for step in (0, *recorded.checkpoints) if step + 1 in recorded.steps]


def token_numbers(recorded: Recorded, step: int, ticket: int) -> list[MemberTokens]:
    """The tokens of a group: the policy before step `step` is opened and the step is learnt again, from the log. Raises
    `UserError` where that policy is not stored, and where there is no such group.
    """
    steps = computable(recorded)
    if step not in steps:
        there = ", ".join(map(str, steps)) or "none"
        why = "is not stored (run.keep_checkpoints keeps more); there is one before steps"
        raise UserError(f"the policy before step {step} {why} {there}")
    recorded = recorded.at(step)
    stored = recorded.read(step)
    group = next((one for one in stored.groups if one.ticket == ticket), None)
    if group is None:
        raise UserError(f"step {step} has no group {ticket}, or its texts were erased")
    with recorded.as_it_ran():
        try:
            backend = open_at(recorded, step - 1)
        except Damaged as problem:
            raise UserError(f"the policy before step {step} cannot be opened: {problem}") from None
        if backend.policy is None:
            raise UserError("the weights are with other processes, so their log-probs cannot be computed here")
        before, entropy = _of(recorded, backend.policy, group)
        after: list[list[float]] | None = None
        if stored.kept:
            learning = Learning(recorded.stage, recorded.objective, recorded.combination, backend)
            learning.learn([bare(one) for one in stored.kept], step)
            after, _ = _of(recorded, backend.policy, group)
    return [
        _member(recorded, group, member, before[member], entropy[member], after[member] if after else None)
        for member in range(len(group.rollouts))
    ]


def _of(recorded: Recorded, policy: Policy, group: Group) -> tuple[list[list[float]], list[list[float]]]:
    """Log-probs and entropies, `[members][T]` each."""
    (one,) = recomputed(recorded, policy, [group])
    return [row.tolist() for row in one[1]], [row.tolist() for row in one[2]]


def _member(
    recorded: Recorded, group: Group, member: int, before: Sequence[float], entropy: Sequence[float],
    after: Sequence[float] | None,
) -> MemberTokens:  # fmt: skip
    rollout = group.rollouts[member]

    def chosen(values: Sequence[float]) -> tuple[float | None, ...]:
        return tuple(value if own else None for value, own in zip(values, rollout.mask, strict=True))

    sampler, now = chosen(rollout.logprobs), chosen(after) if after is not None else (None,) * len(rollout.mask)
    given = group.token_advantages[member] if group.token_advantages else None
    advantages = given or [group.advantages[member] if group.advantages else 0.0] * len(rollout.mask)
    clipped = (False,) * len(rollout.mask)
    if after is not None:
        kept, was, push = (torch.tensor([list(of)]).double() for of in (after, rollout.logprobs, advantages))  # [1, T]
        x, o = Tokens(kept, was, torch.tensor([list(rollout.mask)]), push, was), recorded.objective
        low, high, _ = SURROGATES[o.surrogate].clips(o, x, x.ratio(o))
        clipped = tuple(((low | high) & x.mask)[0].tolist())
    return MemberTokens(member, sampler, chosen(before), chosen(entropy), now, clipped)
