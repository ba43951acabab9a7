"""Stages that train a reward model: from preference pairs, or a process reward model from steps with labels."""

from __future__ import annotations

from functools import partial

from cohort.policy.policy import PolicyFacts
from cohort.seeds import derive_seed
from cohort.settings import Evaluate, Stage
from cohort.tasks.preferences import Preferences, open_with_history
from cohort.tasks.steps import COLUMNS, Solutions, open_solutions
from cohort.train.checkpoint import Checkpoint
from cohort.train.examples import PreparedPairs, prepared_pairs
from cohort.train.reward_model.steps import StepLesson
from cohort.train.reward_model.training import PairLesson, RewardModelTraining, form_of
from cohort.train.stage import Context, Plan
from cohort.train.unread import NO_DEMONSTRATIONS, NO_PAIRS, ONE_UPDATE
from cohort.views.plan import process_model_plan, reward_model_plan

__all__ = ["ProcessModel", "RewardModel"]


_TABLES = ("policy", "task", "preferences", "optimizer", "evaluate", "run")
_UNREAD = (
    *(*NO_DEMONSTRATIONS, *ONE_UPDATE, "policy.router_aux_coef", "policy.memory_gb", "policy.checkpointing"),
    *(f"task.{key}" for key in ("messages", "answer", "answer_format", "special_tokens")),
    *(f"evaluate.{key}" for key in Evaluate.model_fields if key not in ("problems", "margin")),
)


class RewardModel:
    """`kind = "reward_model"`, a `StageKind`."""

    tables = _TABLES
    unread = _UNREAD
    columns = ("loss", "pairs/accuracy", "grad_norm", "tokens_per_s")
    reads = ("chosen", "rejected")
    makes_policy = False  # it scores what a policy writes, and is none itself
    acts = ("adapt", "roll_back")

    def prepare(self, stage: Stage, seed: int) -> PreparedPairs[Preferences]:
        """The pairs. A template that cannot be is refused."""
        form_of(stage.task)
        pairs = open_with_history(stage.task, stage.preferences, derive_seed(seed, "replay"))
        return prepared_pairs(stage, pairs, "preference pairs")

    def plan(self, stage: Stage, prepared: PreparedPairs[Preferences], facts: PolicyFacts) -> Plan:
        """How many pairs, how often."""
        return reward_model_plan(stage, facts, prepared.pairs)

    def open(
        self, context: Context, prepared: PreparedPairs[Preferences], checkpoint: Checkpoint | None
    ) -> RewardModelTraining:
        """See `StageKind`."""
        lesson = partial(PairLesson, context.stage, prepared.pairs)
        return RewardModelTraining(context, prepared, checkpoint, lesson)


class ProcessModel:
    """`kind = "process_model"`, a `StageKind`."""

    tables = _TABLES
    unread = (*_UNREAD, *NO_PAIRS, "preferences.centring", "preferences.history")
    columns = ("loss", "steps/accuracy", "steps/right", "grad_norm", "tokens_per_s")
    reads = COLUMNS
    makes_policy = False
    acts = ("adapt", "roll_back")

    def prepare(self, stage: Stage, seed: int) -> PreparedPairs[Solutions]:
        """The solutions. A template that cannot be is refused."""
        form_of(stage.task)
        return prepared_pairs(stage, open_solutions(stage.task), "solutions")

    def plan(self, stage: Stage, prepared: PreparedPairs[Solutions], facts: PolicyFacts) -> Plan:
        """How many solutions, how often."""
        return process_model_plan(stage, facts, prepared.pairs)

    def open(
        self, context: Context, prepared: PreparedPairs[Solutions], checkpoint: Checkpoint | None
    ) -> RewardModelTraining:
        """See `StageKind`."""
        lesson = partial(StepLesson, context.stage, prepared.pairs)
        return RewardModelTraining(context, prepared, checkpoint, lesson, steps=True)
