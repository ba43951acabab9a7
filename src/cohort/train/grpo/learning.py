"""What a step learns from its groups: advantages, batches, optimizer updates, and the reference's turn."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cohort.algorithms.objectives import Objective, kl_in_reward
from cohort.backends.base import Backend
from cohort.learn.batch import collate, rectangle, split
from cohort.learn.optimizer import rate_at
from cohort.monitor.metrics import merge_reports
from cohort.preflight.objective import supervised_steps
from cohort.rewards import Combination
from cohort.settings import Stage
from cohort.train.grpo.advantages import Valued, with_advantages, with_token_advantages
from cohort.train.grpo.step_rewards import step_metrics, with_process_advantages
from cohort.types import Batch, Group, StepReport

__all__ = ["Learning"]


class Learning:
    """The learning half of a GRPO stage: what its objective makes of scored groups, through a backend."""

    def __init__(self, stage: Stage, objective: Objective, combination: Combination, backend: Backend):
        self._stage, self._objective, self._backend = stage, objective, backend
        self._combination = combination
        self._steps_of = supervised_steps(stage.reward)  # the rewards whose steps are supervised one by one
        self._bypass = stage.objective.bypasses

    def learn(self, groups: Sequence[Group], step: int) -> tuple[list[Group], dict[str, float]]:
        """All optimizer updates of a step. Returns the groups with their advantages, and the metrics."""
        if not groups:
            return [], {}
        trained, valued, metrics = self._advantages(groups)
        table, longest = self._stage.optimizer, self._stage.rollout.max_tokens
        rate = rate_at(table, self._stage.run.steps, step)
        parts = split(trained, table.updates_per_batch)
        old = len(parts) * table.epochs > 1 and not self._bypass
        # Old and reference log-probs are computed before the first update.
        batches = [self._scored(collate(part, self._objective, longest), old) for part in parts]
        reports = []
        for _ in range(table.epochs):
            for index, batch in enumerate(batches):
                report = self._backend.update(batch, rate)
                if valued is not None:
                    own_part, own = valued.part(index, len(batches)), self._stage.critic.learning_rate
                    loss = self._backend.update_values(own_part.batch, own_part.returns, rate if own is None else own)
                    report = StepReport({**report.metrics, "critic/loss": loss})
                reports.append(report)
        merged = merge_reports(reports)
        if self._bypass:
            merged["policy/mismatch"] = math.nan  # the old log-probs are the sampler's: nothing was compared
        return trained, merged | metrics

    def move_reference(self, step: int) -> None:
        """Copy the policy into the reference, or blend it in, when the recipe says so."""
        table = self._stage.reference
        due = table.update_every and step % table.update_every == 0
        if self._objective.needs_reference and (due or (table.ema is not None and not table.update_every)):
            self._backend.move_reference(table.ema)

    def _advantages(self, groups: Sequence[Group]) -> tuple[list[Group], Valued | None, dict[str, float]]:
        """The groups with their advantages, what the critic learns from, and metrics of a KL in the reward."""
        penalty, metrics = self._penalty(groups)
        if self._steps_of:
            done = with_process_advantages(groups, self._objective, self._combination, self._steps_of)
            return done, None, metrics | step_metrics(groups, self._steps_of)
        if self._objective.baseline != "critic":
            k = self._stage.objective.pass_at_k
            return with_advantages(groups, self._objective, self._combination, penalty, k), None, metrics
        batch = collate(groups, self._objective, self._stage.rollout.max_tokens)
        critic = self._stage.critic
        values = functools.partial(self._backend.score, which="values")
        done, valued = with_token_advantages(groups, self._objective, batch, values, penalty, critic.gamma, critic.lam)
        return done, valued, metrics

    def _penalty(self, groups: Sequence[Group]) -> tuple[Tensor | None, dict[str, float]]:
        """`[B, T]`: what a KL in the reward takes from each token, of the weights before the update; and its mean."""
        objective = self._objective
        if not objective.needs_reference or objective.kl_place != "reward":
            return None, {}
        # A completion that is cut off leaves the loss, not the baseline: its KL is charged all the same.
        batch = collate(groups, replace(objective, truncated="keep"), self._stage.rollout.max_tokens)
        batch = replace(batch, advantages=torch.ones_like(batch.advantages))  # so that every token is scored
        batch = self._backend.score(self._backend.score(batch, "old"), "reference")
        assert batch.old_logprobs is not None
        assert batch.ref_logprobs is not None
        penalty = rectangle(kl_in_reward(objective, batch.old_logprobs, batch.ref_logprobs, batch.mask), batch.lengths)
        return penalty, {"policy/kl": (penalty.sum() / objective.kl_coef / batch.mask.sum()).item()}

    def _scored(self, batch: Batch, old: bool) -> Batch:
        """The batch with the log-probs that its updates compare with. With one update of a batch, the update's own
        forward pass gives the old ones.
        """
        if old:
            batch = self._backend.score(batch, "old")
        if self._objective.needs_reference and self._objective.kl_place == "loss":
            batch = self._backend.score(batch, "reference")
        return replace(batch, old_logprobs=batch.sampler_logprobs) if self._bypass else batch
