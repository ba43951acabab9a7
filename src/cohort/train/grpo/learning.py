"""What a step learns from its groups: advantages, batches, optimizer updates."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cohort.algorithms.objectives import Objective, kl_in_reward
from cohort.backends.base import Backend
from cohort.backends.proving import refuse_apart
from cohort.learn.batch import collate, decided, rectangle, split
from cohort.learn.optimizer import rate_at
from cohort.monitor.metrics import merge_reports
from cohort.policy.text import reader
from cohort.preflight.objective import supervised_steps
from cohort.rewards import Combination
from cohort.seeds import derive_seed
from cohort.settings import Stage
from cohort.train.distill.lesson import heard, lesson, teacher_metrics, with_teachers
from cohort.train.grpo.advantages import (
    Valued,
    repeats,
    with_advantages,
    with_optimal_baseline,
    with_state_advantages,
    with_token_advantages,
)
from cohort.train.grpo.experts import expert_batch
from cohort.train.grpo.malformed import with_penalty
from cohort.train.grpo.step_rewards import step_metrics, with_process_advantages
from cohort.types import Group, StepReport, UserError


@dataclass(frozen=True, slots=True)
class Learning:
    """The learning half of a GRPO stage: what its objective makes of scored groups, through a backend."""

    stage: Stage
    objective: Objective
    combination: Combination
    backend: Backend

    def learn(self, groups: Sequence[Group], step: int) -> tuple[list[Group], dict[str, float]]:
        """All optimizer updates of a step. Returns the groups with their advantages, and the metrics."""
        if not groups:
            return [], {}
        if self.combination.pays and all(math.isnan(reward) for group in groups for reward in group.rewards):
            raise UserError(
                f"no completion of step {step} has a reward: {' and '.join(self.combination.weights)} returned None, "
                "which says that a reward does not apply, for all of them. Is a return missing, or a prompt without "
                "any reward in the task?"
            )
        objective, longest = self.objective, self.stage.rollout.max_tokens
        steps_of = supervised_steps(self.stage.reward)  # the rewards whose steps are supervised one by one
        in_reward = objective.needs_reference and objective.kl_place == "reward"
        penalty, metrics = self._penalty(groups) if in_reward else (None, {})
        valued: Valued | None = None
        try:
            if steps_of:
                trained = with_process_advantages(groups, objective, self.combination, steps_of)
                metrics |= step_metrics(groups, steps_of)
            elif objective.baseline == "critic":
                trained, valued = self._by_critic(groups, penalty)
            elif objective.baseline == "token_optimal":
                energy = functools.partial(self.backend.score, which="energy")
                whole = collate(groups, replace(objective, truncated="keep"), longest)  # all stay in the baseline
                trained = with_optimal_baseline(groups, objective, whole, energy)
            elif objective.credit == "states":
                trained = with_state_advantages(groups, objective, self.combination)
            else:
                k, how = self.stage.objective.pass_at_k, self.stage.rollout.groups
                trained = with_advantages(groups, objective, self.combination, penalty, k, how)
                if how != "sample":
                    metrics["groups/repeats"] = float(sum(sum(repeats(group, how)) for group in groups))
        except ValueError as error:
            raise UserError(f"the rewards of step {step} give no advantages: {error}") from error
        if penalty_of_tokens := self.stage.objective.malformed_penalty:
            decode = reader(self.backend.facts.tokenizer, self.backend.facts.eos_ids)
            trained, found = with_penalty(trained, objective, penalty_of_tokens, decode)
            metrics |= found
        table, bypass = self.stage.optimizer, self.stage.objective.bypasses
        alone = 0 if valued is None else self.stage.critic.warmup_steps  # the policy's steps begin after these
        if valued is not None:
            metrics |= {"critic/explained": valued.explained()}
            metrics |= {"critic/warmup": float(step <= alone)} if alone else {}
            if step <= alone:
                return trained, metrics | self._warm_up(valued, table.learning_rate)
        rate = rate_at(table, self.stage.run.steps - alone, step - alone)
        parts = split(trained, table.updates_per_batch) if table.updates_per_batch > 1 else [trained]
        # Old and reference log-probs are computed before the first update. With one update of a batch, the update's own
        # forward pass gives the old ones.
        taught = self.stage.taught
        counted = parts if taught is None or self.combination.pays else [heard(part) for part in parts]
        batches = [replace(collate(part, objective, longest), version=step) for part in counted]
        if objective.term_of("expert"):
            facts = self.backend.facts
            experts = [expert_batch(self.stage, facts, objective, part) for part in parts]
            batches = [replace(batch, expert=one) for batch, one in zip(batches, experts, strict=True)]
        if taught is not None and taught.divergence != "sampled":
            lessons = [lesson(self.stage, self.backend.facts, part) for part in parts]
            batches = [replace(batch, lesson=one) for batch, one in zip(batches, lessons, strict=True)]
            batches = [self.backend.score(batch, "teacher") for batch in batches]
            trained, metrics = with_teachers(trained, batches), metrics | teacher_metrics(self.stage, batches)
        if not all(bool(batch.advantages.isfinite().all()) for batch in batches):
            raise UserError(
                f"an advantage of step {step} is too large for the loss, which is computed in float32 (up to 3e38); "
                "scale the rewards or their weights to a range near 1"
            )
        if (len(parts) * table.epochs > 1 and not bypass) or objective.is_batchwide:
            batches = [
                decided(self.backend.score(batch, "old"), objective, seed=derive_seed(step, "focus", index))
                for index, batch in enumerate(batches)
            ]
        if objective.needs_reference and not in_reward:
            batches = [self.backend.score(batch, "reference") for batch in batches]
        if bypass:
            batches = [replace(batch, old_logprobs=batch.sampler_logprobs) for batch in batches]
        reports: list[StepReport] = []
        for _ in range(table.epochs):
            for index, batch in enumerate(batches):
                report = self.backend.update(batch, rate)
                if valued is not None:
                    loss = self._update_values(valued.part(index, len(batches)), rate)
                    report = StepReport({**report.metrics, "critic/loss": loss})
                if not reports:
                    self._refuse_apart(report, groups, step - 1)
                reports.append(report)
        merged = merge_reports(reports)
        if bypass:
            merged["policy/mismatch"] = math.nan  # the old log-probs are the sampler's: nothing was compared
        return trained, merged | metrics

    def _refuse_apart(self, report: StepReport, groups: Sequence[Group], version: int) -> None:
        """Stop where the learner gives the rollouts other log-probs than the sampler did, though all were drawn from
        the weights that the learner had. A truncated distribution has other ones by its nature, and so has a group that
        is no draw.
        """
        rollout = self.stage.rollout
        whole = rollout.draws and rollout.top_p == 1 and rollout.top_k == 0 and rollout.min_p == 0
        gap = report.metrics["policy/mismatch"]  # NaN where nothing was computed
        if whole and not math.isnan(gap) and all(r.version == version for group in groups for r in group.rollouts):
            refuse_apart(gap, self.stage, version, "of this step's rollouts")

    def _by_critic(self, groups: Sequence[Group], penalty: Tensor | None) -> tuple[list[Group], Valued]:
        """The groups with the critic's advantages, and what the critic learns from."""
        batch, critic = collate(groups, self.objective, self.stage.rollout.max_tokens), self.stage.critic
        values = functools.partial(self.backend.score, which="values")
        return with_token_advantages(groups, self.objective, batch, values, penalty, critic.gamma, critic.lam)

    def _update_values(self, part: Valued, rate: float) -> float:
        """One update of the critic, at its own rate where it has one. Returns the loss."""
        own = self.stage.critic.learning_rate
        return self.backend.update_values(part.batch, part.returns, rate if own is None else own)

    def _warm_up(self, valued: Valued, rate: float) -> dict[str, float]:
        """The updates of a step in which only the critic learns: as many as the policy would have."""
        parts, epochs = self.stage.optimizer.updates_per_batch, self.stage.optimizer.epochs
        losses = [self._update_values(valued.part(i, parts), rate) for _ in range(epochs) for i in range(parts)]
        tokens = float(valued.batch.mask.sum()) * epochs
        lost = {"policy/not_finite": 0.0} if self.stage.tolerant else {}
        return {"critic/loss": math.fsum(losses) / len(losses), "tokens/trained": tokens} | lost

    def _penalty(self, groups: Sequence[Group]) -> tuple[Tensor, dict[str, float]]:
        """`[B, T]`: what a KL in the reward takes from each token, of the weights before the update; and its mean."""
        objective = self.objective
        # A completion that is cut off leaves the loss, not the baseline: its KL is charged all the same.
        batch = collate(groups, replace(objective, truncated="keep"), self.stage.rollout.max_tokens)
        batch = replace(batch, advantages=torch.ones_like(batch.advantages))  # so that every token is scored
        batch = self.backend.score(self.backend.score(batch, "old"), "reference")
        assert batch.old_logprobs is not None
        assert batch.ref_logprobs is not None
        penalty = rectangle(kl_in_reward(objective, batch.old_logprobs, batch.ref_logprobs, batch.mask), batch.lengths)
        return penalty, {"policy/kl": (penalty.sum() / objective.kl_coef / batch.mask.sum()).item()}
