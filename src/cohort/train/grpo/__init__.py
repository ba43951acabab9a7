"""GRPO stages: prompt, group, rewards, advantages, batch, update, record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cohort.algorithms.objectives import Objective
from cohort.backends.base import PolicyFacts
from cohort.preflight.objective import settled_objective
from cohort.preflight.parts import SamplingParts, open_parts
from cohort.settings import Stage
from cohort.train.checkpoint import Checkpoint
from cohort.train.grpo.training import GrpoTraining
from cohort.train.stage import Context, Plan
from cohort.types import UserError
from cohort.views.plan import grpo_plan

__all__ = ["Grpo", "PreparedGrpo"]

TEXTS_FOR_TOKENIZER = 4000


@dataclass(frozen=True, slots=True)
class PreparedGrpo:
    """All of a GRPO stage that needs no model."""

    parts: SamplingParts
    objective: Objective

    def texts(self) -> Iterable[str]:
        """The first questions of the task."""
        train = self.parts.task.train
        return (train[i].question for i in range(min(train.size or TEXTS_FOR_TOKENIZER, TEXTS_FOR_TOKENIZER)))


class Grpo:
    """`kind = "grpo"`, a `StageKind`."""

    tables = (
        *("policy", "task", "rollout", "environment", "reward", "objective", "optimizer", "critic", "reference"),
        *("evaluate", "run"),
    )
    columns = (
        *("reward/mean", "groups/signal", "completions/mean_tokens", "completions/truncated", "tokens_per_s"),
        "policy/entropy",
    )
    makes_policy = True

    def prepare(self, stage: Stage, seed: int) -> PreparedGrpo:
        """The objective, the prompts and the rewards, checked."""
        objective = settled_objective(stage)
        parts = open_parts(stage, seed)
        size = parts.task.train.size
        if size is not None and size < stage.rollout.prompts_per_step:
            raise UserError(
                f"the task has {size} training prompts, fewer than one step takes (rollout.prompts_per_step = "
                f"{stage.rollout.prompts_per_step}). Lower prompts_per_step to {size} or less, or bring more prompts."
            )
        return PreparedGrpo(parts, objective)

    def plan(self, stage: Stage, prepared: PreparedGrpo, facts: PolicyFacts) -> Plan:
        """The objective, the batch, the rewards, the memory."""
        return grpo_plan(stage, prepared.objective, facts, prepared.parts.task.train.size)

    def open(self, context: Context, prepared: PreparedGrpo, checkpoint: Checkpoint | None) -> GrpoTraining:
        """Everything that one step needs, wired together."""
        staleness, objective = context.stage.rollout.max_staleness, prepared.objective
        if staleness and objective.correction == "off" and not context.stage.objective.bypasses:
            context.console.warn(
                f"rollouts may be {staleness} updates old (rollout.max_staleness) and nothing corrects for it: set "
                'objective.bypass = true, or objective.correction = "token_truncate"'
            )
        return GrpoTraining(context, prepared.parts, objective, context.origin(prepared, checkpoint), checkpoint)
