"""What goes into scoring, what comes out, and how several scores become one reward."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cohort.types import Finish, Message, Prompt, Rollout

__all__ = ["ScoredGroup", "ScoringItem", "combine"]


@dataclass(frozen=True, slots=True)
class ScoringItem:
    """One prompt with all its completions: the unit of scoring.

    `row` holds every column of the prompt's row. `finishes` and `tokens` (token counts) have one entry a completion, or
    are left empty where nobody knows them; a reward that asks for them is then refused. `seed` feeds rewards that draw.
    """

    prompt: str
    completions: tuple[str, ...]
    answer: Any = None
    row: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[Message, ...] | None = None
    finishes: tuple[Finish, ...] = ()
    tokens: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, values in (("finishes", self.finishes), ("tokens", self.tokens)):
            if values and len(values) != len(self.completions):
                raise ValueError(f"{name} has {len(values)} entries for {len(self.completions)} completions")

    @staticmethod
    def of(prompt: Prompt, rollouts: Sequence[Rollout], seed: int = 0) -> ScoringItem:
        """The item for a prompt and its rollouts. Only tokens that the policy chose are counted."""
        return ScoringItem(
            prompt=prompt.question,
            completions=tuple(rollout.text for rollout in rollouts),
            answer=prompt.answer,
            row=dict(prompt.tags),
            messages=prompt.messages,
            finishes=tuple(rollout.finish for rollout in rollouts),
            tokens=tuple(sum(rollout.mask) for rollout in rollouts),
            seed=seed,
        )


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """`scores[name][g]` is one reward of completion g before weighting (NaN: does not apply), `seconds[name]` what it
    took, `rewards[g]` the weighted sum.
    """

    scores: Mapping[str, tuple[float, ...]]
    seconds: Mapping[str, float]
    rewards: tuple[float, ...]


def combine(scores: Mapping[str, Sequence[float]], weights: Mapping[str, float]) -> tuple[float, ...]:
    """The weighted sum of each completion's scores. NaN components are left out; if all are NaN, so is the total."""
    totals = []
    for components in zip(*scores.values(), strict=True):
        applied = [
            weights[name] * value for name, value in zip(scores, components, strict=True) if not math.isnan(value)
        ]
        totals.append(math.fsum(applied) if applied else math.nan)
    return tuple(totals)
