"""What a step does with its groups: advantages, batches, optimizer updates, and the reference's turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from cohort.learn.batch import collate, split
from cohort.learn.critic import Critic
from cohort.learn.learner import Learner
from cohort.learn.optimizer import load_optimizer
from cohort.learn.reference import Reference
from cohort.monitor.metrics import merge_reports
from cohort.policy.policy import Policy
from cohort.rewards import Combination
from cohort.train.advantages import Valued, with_advantages, with_token_advantages
from cohort.train.checkpoint import Checkpoint, restore_reference
from cohort.train.process import step_metrics, supervised_steps, with_process_advantages
from cohort.train.setup import GrpoParts, build_policy, bypasses, optimizer_settings, rate_at
from cohort.train.stage_run import StageRun
from cohort.types import Group, StepReport, UserError

__all__ = ["Updates"]


class Updates:
    """The trainable half of a GRPO stage: the learner, its reference, and a critic where the objective has one."""

    def __init__(self, run: StageRun, parts: GrpoParts, policy: Policy, checkpoint: Checkpoint | None):
        self.run, self.stage, self.objective = run, run.stage, parts.objective
        self.combination = Combination.of(parts.rewards)
        self.supervised = supervised_steps(run.stage)
        settings, tokens = optimizer_settings(run.stage), run.stage.optimizer.tokens_per_micro_batch
        self.reference = self._reference(policy, resumed=checkpoint is not None)
        self.learner = Learner(
            policy, parts.objective, settings, run.stage.rollout.temperature, tokens, reference=self.reference
        )
        self.critic: Critic | None = None
        if parts.objective.baseline == "critic":
            self.critic = Critic(policy, settings, run.stage.critic.value_clip, tokens)
        if checkpoint is not None:
            load_optimizer(self.learner.optimizer, checkpoint.path)
            if self.reference is not None:
                restore_reference(self.reference, checkpoint.path)
            if self.critic is not None:
                self.critic.load(checkpoint.path / "critic")

    def advantages(self, groups: Sequence[Group]) -> tuple[list[Group], Valued | None, dict[str, float]]:
        """The groups with their advantages, what the critic learns from, and metrics of a KL in the reward."""
        penalty, metrics = None, {}
        if self.objective.needs_reference and self.objective.kl_place == "reward":
            # A completion that is cut off leaves the loss, not the baseline: its KL is charged all the same.
            everything = replace(self.objective, truncated="keep")
            unmasked = collate(groups, everything, self.stage.rollout.max_tokens)
            penalty = self.learner.kl_penalty(unmasked)
            metrics["policy/kl"] = (penalty.sum() / self.objective.kl_coef / unmasked.mask.sum()).item()
        if self.supervised:
            done = with_process_advantages(groups, self.objective, self.combination, self.supervised)
            return done, None, metrics | step_metrics(groups, self.supervised)
        if self.critic is None:
            k = self.stage.objective.pass_at_k
            return with_advantages(groups, self.objective, self.combination, penalty, k), None, metrics
        whole = collate(groups, self.objective, self.stage.rollout.max_tokens)
        gamma, lam = self.stage.critic.gamma, self.stage.critic.lam
        done, valued = with_token_advantages(groups, self.objective, whole, self.critic, penalty, gamma, lam)
        return done, valued, metrics

    def update(self, groups: Sequence[Group], valued: Valued | None, step: int) -> dict[str, float]:
        """All optimizer updates of a step. Old and reference log-probs are computed before the first of them."""
        o, rate = self.stage.optimizer, rate_at(self.stage, step)
        parts = split(groups, o.updates_per_batch)
        several = len(parts) * o.epochs > 1
        batches = [
            self.learner.score(collate(part, self.objective, self.stage.rollout.max_tokens), old=several)
            for part in parts
        ]
        if bypasses(self.stage):
            batches = [replace(batch, old_logprobs=batch.sampler_logprobs) for batch in batches]
        reports = []
        for _ in range(o.epochs):
            for index, batch in enumerate(batches):
                report = self.learner.update(batch, rate)
                if self.critic is not None and valued is not None:
                    loss = self._update_critic(self.critic, valued.part(index, len(batches)), rate)
                    report = StepReport({**report.metrics, "critic/loss": loss})
                reports.append(report)
        merged = merge_reports(reports)
        if bypasses(self.stage):
            merged["policy/mismatch"] = math.nan  # the old log-probs are the sampler's: nothing was compared
        return merged

    def move_reference(self, step: int) -> None:
        """Copy the policy into the reference, or blend it in, when the recipe says so."""
        settings = self.stage.reference
        if self.reference is None or self.reference.adapter_off:
            return
        due = settings.update_every and step % settings.update_every == 0
        if due or (settings.ema is not None and not settings.update_every):
            self.reference.refresh(settings.ema)

    def _update_critic(self, critic: Critic, valued: Valued, policy_rate: float) -> float:
        own = self.stage.critic.learning_rate
        return critic.update(valued.batch, valued.returns, valued.values, policy_rate if own is None else own)

    def _reference(self, policy: Policy, resumed: bool) -> Reference | None:
        """A copy of the weights the stage began with: those at hand in a fresh run, read again in a resumed one."""
        if not self.objective.needs_reference:
            return None
        if self.stage.policy.lora is None and policy.has_adapter:
            raise UserError(
                "the stage starts from a LoRA adapter and has a KL, whose reference would be the base without it: "
                "merge the adapter into a checkpoint first, or set objective.kl_coef = 0"
            )
        if resumed and self.stage.policy.lora is None:
            return Reference(policy, build_policy(self.stage, self.run.seed, self.run.start, self.run.live))
        return Reference(policy)
