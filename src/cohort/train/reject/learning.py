"""What a step makes of its samples: those that are right are kept and, online, learnt at once.

In the terms of DeepSeekMath's unified view (2402.03300, section 5.2): the data are the policy's own samples, the reward
is a rule or a model, and the gradient coefficient is 1 for what is kept and 0 for all else. The loss is that of
supervised training: minus the log-prob, averaged over the tokens of what is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cohort.algorithms.objectives import Objective
from cohort.backends.base import Backend
from cohort.learn.optimizer import rate_at
from cohort.rewards import Combination
from cohort.settings import Stage
from cohort.train.reject.selection import Sample, judge, select
from cohort.train.sft import supervised_batch, updated
from cohort.types import Batch, Group

REASONS = (  # why a sample is refused, of those that one step can know
    *("wrong", "not scored", "cut off", "out of turns", "several messages", "too hard", "too easy", "duplicate"),
    "over per_prompt",
)


@dataclass(frozen=True, slots=True)
class Keeping:
    """A `Learns`: the learning half of a stage that keeps samples; with `learns` it takes a step on them."""

    stage: Stage
    objective: Objective
    combination: Combination
    backend: Backend
    learns: bool

    def learn(self, groups: Sequence[Group], step: int) -> tuple[list[Group], dict[str, float]]:
        """The groups with advantage 1 on what is kept, 0 on what is not; and the metrics."""
        table = self.stage.reject.with_(balance=None)  # which is of the whole stage
        found = select((one for group in groups for one in judge(group, table, self.combination, step)), table)
        kept = {(one.ticket, one.member) for one in found.kept}
        refused: Counter[str] = Counter(dict(found.refused))
        metrics = {
            "reject/kept": len(found.kept) / max(found.sampled, 1),
            "reject/prompts": found.prompts_kept / max(found.prompts, 1),
            "reject/low_score": float(sum(count for why, count in refused.items() if why.startswith("low "))),
            **{f"reject/{why.replace(' ', '_')}": float(refused[why]) for why in REASONS},
        }
        if not self.learns:
            return list(groups), metrics | {"tokens/trained": 0.0}
        marked = []
        for group in groups:
            own = tuple(float((group.ticket, member) in kept) for member in range(len(group.rollouts)))
            marked.append(group.with_(advantages=own, disposition="trained" if any(own) else "zero_std"))
        if not found.kept:
            return marked, metrics
        rate = rate_at(self.stage.optimizer, self.stage.run.steps, step)
        report = self.backend.update(learnt_batch(found.kept), rate).metrics
        return marked, metrics | updated(report)


def learnt_batch(samples: Sequence[Sample]) -> Batch:
    """Samples as a supervised batch, of the very tokens that were sampled."""
    return supervised_batch([(one.prompt.tokens, list(one.rollout.tokens), list(one.rollout.mask)) for one in samples])
