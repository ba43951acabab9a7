"""Rejection sampling (`kind = "reject"`), and supervised training on what it keeps (`kind = "rft"`)."""

from __future__ import annotations

from functools import partial

from cohort.policy.policy import PolicyFacts
from cohort.preflight.parts import SamplingParts, open_parts
from cohort.rewards import Combination
from cohort.settings import Stage
from cohort.train.grpo.training import GrpoTraining, PreparedGrpo
from cohort.train.reject.data import write_data
from cohort.train.reject.learning import Keeping
from cohort.train.reject.rft import RftTraining
from cohort.train.reject.selection import refuse_no_column
from cohort.train.sft import SUPERVISED
from cohort.train.stage import Plan, refuse_few
from cohort.train.unread import NO_DEMONSTRATIONS, NO_PAIRS, ONE_UPDATE
from cohort.types import UserError
from cohort.views.plan import reject_plan, rft_plan

__all__ = ["Reject", "Rft"]

_SAMPLES = ("policy", "task", "rollout", "environment", "reward", "reject", "evaluate", "run")
_UNREAD = (*NO_DEMONSTRATIONS, *NO_PAIRS)
_COLUMNS = ("reject/kept", "reward/mean", "groups/pass_rate", "completions/mean_tokens", "completions/truncated")


class Reject:
    """`kind = "reject"`, a `StageKind`: it samples, keeps what is right, and trains nothing."""

    tables = _SAMPLES
    unread = (*_UNREAD, "policy.router_aux_coef", "run.keep_best")  # it leaves all of its samples, of one model
    columns = (*_COLUMNS, "tokens_per_s")
    makes_policy = True  # it leads on to the model that came in
    makes_data = True
    open = GrpoTraining

    def prepare(self, stage: Stage, seed: int) -> PreparedGrpo:
        """The prompts and the rewards, checked."""
        parts = _sampled(stage, seed)
        finish = partial(write_data, combination=Combination.of(parts.rewards))
        learning = partial(Keeping, learns=False)
        return PreparedGrpo(parts, SUPERVISED, learning=learning, trains=False, finish=finish)

    def plan(self, stage: Stage, prepared: PreparedGrpo, facts: PolicyFacts) -> Plan:
        """How many samples, and which are kept."""
        return reject_plan(stage, facts, prepared.parts.task.train.size, prepared.parts.task.held_out)


class Rft:
    """`kind = "rft"`, a `StageKind`: supervised training on the policy's own right samples."""

    tables = (*_SAMPLES, "rft", "supervised", "optimizer")
    unread = (*_UNREAD, *ONE_UPDATE, "reject.pairs")
    columns = (*_COLUMNS, "loss", "grad_norm", "tokens_per_s")
    makes_policy = True
    open = RftTraining

    def prepare(self, stage: Stage, seed: int) -> PreparedGrpo:
        """The prompts and the rewards, checked."""
        if stage.rft.mode == "offline" and stage.rft.sampling_steps >= stage.run.steps:
            raise UserError(
                f"rft.sampling_steps = {stage.rft.sampling_steps} leaves no step to learn, of run.steps = "
                f"{stage.run.steps}: the others learn what the first ones have sampled"
            )
        if stage.rft.mode == "online" and (stage.reject.balance is not None or stage.rft.sampling_steps > 1):
            key = "rft.sampling_steps" if stage.reject.balance is None else "reject.balance"
            raise UserError(f'{key} looks at the samples of many steps: set rft.mode = "offline", or remove it')
        learning = partial(Keeping, learns=stage.rft.mode == "online")
        return PreparedGrpo(_sampled(stage, seed), SUPERVISED, learning=learning)

    def plan(self, stage: Stage, prepared: PreparedGrpo, facts: PolicyFacts) -> Plan:
        """How many samples, which are kept, and how they are learnt."""
        return rft_plan(stage, facts, prepared.parts.task.train.size, prepared.parts.task.held_out)


def _sampled(stage: Stage, seed: int) -> SamplingParts:
    """What a stage samples and judges with. Raises `UserError` where nothing would say which samples are right."""
    if not stage.reward or not any(reward.weight for reward in stage.reward):
        raise UserError(
            f"stage '{stage.name}' has no reward with a weight, which says which samples are right: add one, such as "
            'reward = "exact_number"'
        )
    names = [reward.name for reward in stage.reward]
    if strange := [name for name in stage.reject.least if name not in names]:
        raise UserError(f"reject.least names {strange[0]!r}, which is no reward; there is {', '.join(names)}")
    if stage.reject.hardest > stage.reject.easiest:
        raise UserError("reject.hardest is more than reject.easiest, which leaves out every prompt: lower it")
    if stage.reject.shares and not any(stage.reject.shares.values()):
        raise UserError("reject.shares are all 0, which leaves out every sample: give one of them a share")
    if not stage.run.save_rollouts:
        raise UserError("run.save_rollouts = false keeps no samples to choose from: leave it out")
    parts = open_parts(stage, seed)
    refuse_few(parts.task.train, "training prompts", "rollout.prompts_per_step", stage.rollout.prompts_per_step)
    if stage.reject.balance is not None:
        refuse_no_column(parts.task.train[0], stage.reject.balance)
    return parts
