"""Stages that train a reward model from preference pairs."""

from __future__ import annotations

from cohort.policy.policy import PolicyFacts
from cohort.settings import Evaluate, Stage
from cohort.tasks.preferences import open_pairs
from cohort.train.contamination import cleaned
from cohort.train.reward_model.training import PreparedRewardModel, RewardModelTraining, form_of
from cohort.train.stage import Plan, refuse_few
from cohort.train.unread import NO_DEMONSTRATIONS, ONE_UPDATE
from cohort.views.plan import reward_model_plan

__all__ = ["RewardModel"]


class RewardModel:
    """`kind = "reward_model"`, a `StageKind`."""

    tables = ("policy", "task", "preferences", "optimizer", "evaluate", "run")
    unread = (
        *(*NO_DEMONSTRATIONS, *ONE_UPDATE, "policy.router_aux_coef"),
        *(f"task.{key}" for key in ("messages", "answer", "answer_format", "special_tokens")),
        *(f"evaluate.{key}" for key in Evaluate.model_fields if key not in ("problems", "margin")),
    )
    columns = ("loss", "pairs/accuracy", "grad_norm", "tokens_per_s")
    reads = ("chosen", "rejected")
    makes_policy = False  # it scores what a policy writes, and is none itself
    acts = ("adapt", "roll_back")
    open = RewardModelTraining

    def prepare(self, stage: Stage, seed: int) -> PreparedRewardModel:
        """The pairs. A template that cannot be is refused."""
        prepared: PreparedRewardModel = cleaned(stage, PreparedRewardModel(open_pairs(stage.task)))
        wanted = stage.preferences.pairs_per_step
        refuse_few(prepared.pairs.train, "preference pairs", "preferences.pairs_per_step", wanted)
        form_of(stage.task)
        return prepared

    def plan(self, stage: Stage, prepared: PreparedRewardModel, facts: PolicyFacts) -> Plan:
        """How many pairs, how often."""
        pairs = prepared.pairs
        return reward_model_plan(stage, facts, pairs.train.size, 0 if pairs.held_out is None else pairs.held_out.size)
