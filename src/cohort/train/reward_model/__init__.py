"""Stages that train a reward model from preference pairs."""

from __future__ import annotations

from cohort.backends.base import PolicyFacts
from cohort.settings import Stage
from cohort.train.checkpoint import Checkpoint
from cohort.train.reward_model.pairs import PreparedRewardModel, open_pairs
from cohort.train.reward_model.training import RewardModelTraining
from cohort.train.stage import Context, Plan
from cohort.views.plan import reward_model_plan

__all__ = ["RewardModel"]


class RewardModel:
    """`kind = "reward_model"`, a `StageKind`."""

    tables = ("policy", "task", "preferences", "optimizer", "evaluate", "run")
    columns = ("loss", "pairs/accuracy", "grad_norm", "tokens_per_s")
    makes_policy = False  # it scores what a policy writes, and is none itself

    def prepare(self, stage: Stage, seed: int) -> PreparedRewardModel:
        """The pairs, and how the template shows a prompt."""
        return open_pairs(stage)

    def plan(self, stage: Stage, prepared: PreparedRewardModel, facts: PolicyFacts) -> Plan:
        """How many pairs, how often."""
        pairs = prepared.pairs
        return reward_model_plan(stage, facts, pairs.train.size, 0 if pairs.held_out is None else pairs.held_out.size)

    def open(
        self, context: Context, prepared: PreparedRewardModel, checkpoint: Checkpoint | None
    ) -> RewardModelTraining:
        """The reward model, and the order of the pairs."""
        return RewardModelTraining(context, prepared, checkpoint)
