"""GRPO stages: prompt, group, rewards, advantages, batch, update, record."""

from __future__ import annotations

from cohort.backends.cluster.backend import refuse_several
from cohort.policy.policy import PolicyFacts
from cohort.preflight.objective import settled_objective
from cohort.preflight.parts import open_parts
from cohort.settings import Stage
from cohort.tasks.render import longest_prompt, prompt_limit
from cohort.train.grpo.training import GrpoTraining, PreparedGrpo
from cohort.train.stage import NOBODY_JUDGES, Plan, refuse_few
from cohort.train.unread import NO_DEMONSTRATIONS, NO_PAIRS
from cohort.types import UserError
from cohort.views.plan import grpo_plan, placement

__all__ = ["Grpo", "PreparedGrpo"]


class Grpo:
    """`kind = "grpo"`, a `StageKind`."""

    tables = (
        *("policy", "task", "rollout", "environment", "reward", "objective", "optimizer", "critic", "reference"),
        *("evaluate", "run", "cluster"),
    )
    unread = (*NO_DEMONSTRATIONS, *NO_PAIRS)
    columns = (
        *("reward/mean", "reward/{}/mean", "groups/signal", "completions/mean_tokens", "completions/truncated"),
        *("tokens_per_s", "policy/kl", "policy/entropy"),
    )
    makes_policy = True
    acts = ("quarantine", "adapt", "roll_back")
    open = GrpoTraining

    def prepare(self, stage: Stage, seed: int) -> PreparedGrpo:
        """The objective, the prompts and the rewards, checked."""
        objective = settled_objective(stage)
        if stage.clustered:
            refuse_several(stage, objective)
        parts = open_parts(stage, seed)
        if not parts.verifiers and (stage.task.held_out is not None or stage.task.held_out_split is not None):
            raise UserError(NOBODY_JUDGES.format(stage.name))
        refuse_few(parts.task.train, "training prompts", "rollout.prompts_per_step", stage.rollout.prompts_per_step)
        return PreparedGrpo(parts, objective)

    def plan(self, stage: Stage, prepared: PreparedGrpo, facts: PolicyFacts) -> Plan:
        """The objective, the batch, the rewards, the memory."""
        task = prepared.parts.task
        untold = prepared.parts.world.untold(facts.tokenizer, facts.eos_ids)
        held_out = task.held_out if prepared.parts.verifiers else None
        limit = prompt_limit(facts.context, stage.rollout.max_tokens, stage.task.max_prompt_tokens)
        longest = longest_prompt(task.train, task.renderer(facts.tokenizer), limit)
        plan = grpo_plan(stage, prepared.objective, facts, task.train.size, held_out, untold, longest)
        return {**plan, **placement(stage.cluster)} if stage.clustered else plan
