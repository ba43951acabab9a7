"""What goes into scoring, and what comes out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cohort.rewards.combination import Combination
from cohort.types import Finish, Message, Prompt, Rollout

_LABEL = re.compile(r"[a-z][a-z0-9_]{0,39}")
LIMITS = frozenset({"timeout", "memory", "crash"})  # labels of scores that depend on how fast a machine is
OTHER_METRICS = frozenset({"mean", "scored", "not_applicable", "gated", "retries", "failures", "timeouts"})


@dataclass(frozen=True, slots=True)
class Scored:
    """A score with its reason: what a reward function may return instead of a number.

    `value` is the score, None where the reward does not apply. `label` is a short name from a small set, such as
    "unparsed" or "timeout"; the metrics count it as reward/NAME/LABEL. Raises ValueError for any other label.
    `steps` belong to a reward that scores steps: for each step where it ends in the text, in characters, and its score.
    `extra` and `metrics` are what a reward in TRL's style has logged, of the completion and, at a group's first, of the
    group.
    """

    value: float | None
    label: str | None = None
    steps: tuple[tuple[int, float], ...] = field(default=(), repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
    metrics: Mapping[str, float] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.label is not None and not (isinstance(self.label, str) and _LABEL.fullmatch(self.label)):
            raise ValueError(
                "a label is a short name of lower-case letters, digits and '_', such as \"unparsed\", not "
                f"{self.label!r:.80}"
            )
        if self.label in OTHER_METRICS:
            raise ValueError(f"the label {self.label!r} is the name of another metric; choose a different one")


class Labelled(float):
    """A score with its label that is a number as well: what verifiers return that are also called by themselves."""

    label: str

    def __new__(cls, value: float, label: str) -> Labelled:
        """The number `value`, because of `label`."""
        made = super().__new__(cls, value)
        made.label = label
        return made


@dataclass(frozen=True, slots=True)
class ScoringItem:
    """One prompt with all its completions: the unit of scoring.

    `row` holds every column of the prompt's row. `finishes` and `tokens` (token counts) have one entry a completion, or
    are empty where nobody knows them; a reward that asks for them is then refused. `seed` is for rewards that draw
    random numbers. `transcripts` are the conversations that led to the completions, empty where there was one turn.
    `begun` is what the rendered prompt has written of every completion already, such as `<think>`. `completion_ids` are
    the tokens of each, empty where nobody knows them or asks for them, and `step` the steps that were done when they
    were sampled.
    """

    prompt: str
    completions: tuple[str, ...]
    answer: Any = None
    row: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[Message, ...] | None = None
    finishes: tuple[Finish, ...] = ()
    tokens: tuple[int, ...] = ()
    seed: int = 0
    transcripts: tuple[tuple[Message, ...], ...] = ()
    begun: str = ""
    completion_ids: tuple[Sequence[int], ...] = ()
    step: int = 0

    def __post_init__(self) -> None:
        given = (("finishes", self.finishes), ("tokens", self.tokens), ("transcripts", self.transcripts))
        for name, values in given:
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
            transcripts=tuple(rollout.transcript for rollout in rollouts) if any(r.turns for r in rollouts) else (),
            begun=prompt.begun,
            completion_ids=tuple(rollout.tokens for rollout in rollouts),
            step=max((rollout.version for rollout in rollouts), default=0),
        )

    def transcript(self, index: int) -> list[dict[str, Any]]:
        """The conversation behind the prompt that completion `index` ends: the policy's messages and those of tools."""
        if self.transcripts:
            return [dict(message) for message in self.transcripts[index]]
        return [{"role": "assistant", "content": self.completions[index]}]


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """What the rewards said of one group. G completions, indexed by g; rewards go by their names.

    scores[name][g]   the score of completion g before gates and weights (NaN: the reward does not apply)
    seconds[name]     the time that scoring took
    rewards[g]        the weighted sum of the scores after the gates
    labels[name][g]   why the score is what it is (None: no label); only of rewards that gave labels
    retries[name]     how often the reward was tried again before it scored
    steps[name][g]    the steps of completion g, as in `Scored`; only of rewards that score steps
    extra[name][g]    what was logged beside the score of completion g, by column; only of rewards that logged some
    metrics[name]     the metrics that were logged of the group; only of rewards that logged some
    """

    scores: Mapping[str, tuple[float, ...]]
    seconds: Mapping[str, float]
    rewards: tuple[float, ...]
    labels: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    retries: Mapping[str, int] = field(default_factory=dict)
    steps: Mapping[str, tuple[tuple[tuple[int, float], ...], ...]] = field(default_factory=dict)
    extra: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @staticmethod
    def of(
        scored: Mapping[str, Sequence[Scored]],
        seconds: Mapping[str, float],
        combination: Combination,
        retries: Mapping[str, int] | None = None,
    ) -> ScoredGroup:
        """The group of `scored[name][g]`, with the reward that each completion comes to."""
        scores = {name: tuple(s.value if s.value is not None else math.nan for s in of) for name, of in scored.items()}
        labels = {name: tuple(s.label for s in of) for name, of in scored.items() if any(s.label for s in of)}
        steps = {name: tuple(s.steps for s in of) for name, of in scored.items() if any(s.steps for s in of)}
        extra = {name: tuple(s.extra for s in of) for name, of in scored.items() if any(s.extra for s in of)}
        metrics = {name: of[0].metrics for name, of in scored.items() if of and of[0].metrics}
        rewards = combination.total(scores)
        return ScoredGroup(scores, seconds, rewards, labels, dict(retries or {}), steps, extra, metrics)
