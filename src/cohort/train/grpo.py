"""The loop: prompt, group, rewards, advantages, batch, update, record."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from cohort.engine.engine import Engine
from cohort.evaluate import Accuracy, evaluate
from cohort.learn.critic import Critic
from cohort.learn.learner import Learner
from cohort.learn.optimizer import load_optimizer
from cohort.learn.reference import Reference
from cohort.monitor.console import StepView
from cohort.monitor.machine import peak_memory_gb
from cohort.monitor.metrics import group_metrics, merge_reports
from cohort.policy.policy import Policy
from cohort.policy.text import to_rollout
from cohort.record.metrics import MetricsLog
from cohort.record.rollouts import write_groups
from cohort.rewards import RewardPool
from cohort.seeds import derive_seed
from cohort.tasks import Ledger
from cohort.train.advantages import Valued, with_advantages, with_token_advantages
from cohort.train.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    prune,
    readable,
    restore_reference,
    save_checkpoint,
)
from cohort.train.collate import collate, split
from cohort.train.plan import grpo_plan
from cohort.train.setup import (
    GrpoParts,
    RenderedPrompts,
    build_policy,
    bypasses,
    evaluation_sampling,
    held_out_prompts,
    optimizer_settings,
    prompt_limit,
    rate_at,
    refuse_long_prompts,
    resumed_policy,
    training_sampling,
)
from cohort.train.stage_run import StageRun
from cohort.train.stream import GroupStream, StreamSettings
from cohort.types import Batch, Group, Prompt, Rollout, StepReport, UserError

__all__ = ["run_grpo"]


class _Grpo:
    """The parts of one GRPO stage, wired together."""

    def __init__(
        self, run: StageRun, parts: GrpoParts, policy: Policy, checkpoint: Checkpoint | None, stack: ExitStack
    ):
        stage = run.stage
        self.run, self.stage, self.parts, self.policy = run, stage, parts, policy
        self.objective = parts.objective
        self.learner = Learner(
            policy,
            parts.objective,
            optimizer_settings(stage),
            temperature=stage.rollout.temperature,
            tokens_per_micro_batch=stage.optimizer.tokens_per_micro_batch,
            reference=self._reference(resumed=checkpoint is not None),
        )
        self.weights = {reward.name: reward.weight for reward in parts.rewards}
        self.critic = self._critic(checkpoint)
        self.engine = Engine(policy, max_rows=stage.rollout.max_rows)
        log = run.directory / "rewards.log"
        self.pool = stack.enter_context(RewardPool(parts.rewards, workers=stage.run.workers, log=log))
        self.verifier = stack.enter_context(RewardPool([parts.verifier], workers=1, log=log))
        limit = prompt_limit(stage, policy)
        renderer = parts.task.renderer(policy.tokenizer)
        self.prompts = RenderedPrompts(parts.task.train, renderer, limit, stage.task.too_long)
        self.held_out = self._held_out_prompts()
        if stage.task.too_long == "error":
            refuse_long_prompts(self.prompts, parts.task.train.size)
        self.view: StepView | None = None
        self._sampled, self._doing = 0, "sampling"  # groups since this began, for the live line
        self.whole = checkpoint.step if checkpoint else 0  # the last step that is done and recorded
        self._warned = False  # whether an empty step has been reported
        self.touched = False  # whether the weights have moved since
        ledger_seed = derive_seed(run.seed, "ledger")
        size = parts.task.train.size
        ledger = (
            Ledger.restore(checkpoint.state["ledger"], size, ledger_seed) if checkpoint else Ledger(size, ledger_seed)
        )
        settings = StreamSettings(
            prompts_per_step=stage.rollout.prompts_per_step,
            group_size=stage.rollout.group_size,
            sampling=training_sampling(stage),
            max_staleness=stage.rollout.max_staleness,
            zero_std=self.objective.zero_std,
            resample_cap=stage.rollout.resample_cap,
            accuracy=parts.accuracy,
            seed=run.seed,
        )
        self.stream = GroupStream(
            self.prompts, ledger, self.engine, self.pool, self.to_rollout, settings, self._one_sampled
        )
        if checkpoint is not None:
            load_optimizer(self.learner.optimizer, checkpoint.path)
            if self.learner.reference is not None:
                restore_reference(self.learner.reference, checkpoint.path)
            self.engine.publish(checkpoint.step)
            self.stream.restore(checkpoint.pending())

    def to_rollout(self, completion: Any) -> Rollout:
        return to_rollout(completion, self.policy.tokenizer, tuple(self.stage.rollout.stop))

    def _critic(self, checkpoint: Checkpoint | None) -> Critic | None:
        if self.objective.baseline != "critic":
            return None
        settings = self.learner.settings
        tokens = self.stage.optimizer.tokens_per_micro_batch
        critic = Critic(self.policy, settings, self.stage.critic.value_clip, tokens)
        if checkpoint is not None:
            critic.load(checkpoint.path / "critic")
        return critic

    def _reference(self, resumed: bool) -> Reference | None:
        """A copy of the weights the stage began with: those at hand in a fresh run, read again in a resumed one."""
        if not self.objective.needs_reference:
            return None
        if self.stage.policy.lora is None and hasattr(self.policy.module, "disable_adapter"):
            raise UserError(
                "the stage starts from a LoRA adapter and has a KL, whose reference would be the base without it: "
                "merge the adapter into a checkpoint first, or set objective.kl_coef = 0"
            )
        if resumed and self.stage.policy.lora is None:
            return Reference(self.policy, build_policy(self.stage, self.run.seed, self.run.start, self.run.live))
        return Reference(self.policy)

    def _held_out_prompts(self) -> list[Prompt]:
        """What evaluations ask; whatever is odd about it is said."""
        prompts, too_long = held_out_prompts(self.stage, self.parts.task, self.policy)
        if too_long:
            self.run.console.warn(f"{too_long} held-out prompts are longer than the model's context leaves room for")
        if too_long and not prompts:
            raise UserError("all held-out prompts are too long: lower rollout.max_tokens, or set task.too_long")
        if prompts and (both := self.parts.task.overlap()):
            self.run.console.warn(f"{both} held-out questions are also trained on, so their accuracy proves little")
        return prompts

    def _one_sampled(self) -> None:
        self._sampled += 1
        if self.view is not None:
            self.view.doing(f"{self._doing} {self._sampled}")

    def evaluate(self, step: int) -> dict[str, float]:
        """Held-out accuracy of the current weights, greedy and sampled; every completion goes to disk."""
        if not self.held_out:
            return {}
        done: list[Accuracy] = []
        settings = self.stage.evaluate
        for greedy, samples in ((True, int(settings.greedy)), (False, settings.samples)):
            if not samples:
                continue
            self._sampled, self._doing = 0, "evaluating"
            sampling = evaluation_sampling(self.stage, greedy)
            seed = derive_seed(self.run.seed, "evaluate")
            result = evaluate(
                self.engine, self.held_out, self.verifier, self.to_rollout, sampling, samples, seed, self._one_sampled
            )
            done.append(result)
            if self.stage.run.save_rollouts:
                write_groups(self.run.directory / "log" / f"eval-{step:06d}-{result.name}.parquet", result.groups, step)
        return {key: value for result in done for key, value in result.metrics().items()}

    def step(self, step: int) -> dict[str, float]:
        """One training step."""
        began = time.perf_counter()
        self._sampled, self._doing = 0, "sampling"
        groups = self.stream.next()
        learning = time.perf_counter()
        kept, valued, extra = self._advantages(groups.kept) if groups.kept else ([], None, {})
        self.touched = True
        report = merge_reports(self._update(kept, valued, step)) | extra if kept else {}
        self.engine.publish(step)
        self._move_reference(step)
        self.stream.finish(groups)
        ended = time.perf_counter()
        if self.stage.run.save_rollouts:
            write_groups(self.run.directory / "log" / f"step-{step:06d}.parquet", [*kept, *groups.left_out], step)
        metrics = group_metrics(kept, groups.left_out) | report
        metrics |= {
            "tokens/wasted": metrics["tokens/sampled"]
            - report.get("tokens/trained", 0.0) / self.stage.optimizer.epochs,
            "prompts/too_long": float(groups.too_long),
            "time/step_s": ended - began,
            "time/sample_s": groups.sample_s,
            "time/score_s": groups.score_s,
            "time/learn_s": ended - learning,
            "memory/peak_gb": peak_memory_gb(),
            "tokens_per_s": metrics["tokens/sampled"] / max(ended - began, 1e-9),
        }
        if not kept and not self._warned:
            self._warned = True
            self.run.console.warn(
                f"step {step} has no group to train on: all of {len(groups.left_out)} were left out as without signal. "
                "The task is too hard, too easy, or the reward says nothing"
            )
        every = self.stage.run.show_group_every
        if every and step % every == 0 and kept:
            shown = next((g for g in kept if g.disposition == "trained"), kept[0])
            self.run.console.group(step, shown)
        return metrics

    def _advantages(self, groups: list[Group]) -> tuple[list[Group], Valued | None, dict[str, float]]:
        """Advantages of a step, what the critic learns from, and metrics of a KL in the reward."""
        whole = collate(groups, self.objective, self.stage.rollout.max_tokens)
        penalty, extra = None, {}
        if self.objective.needs_reference and self.objective.kl_place == "reward":
            penalty = self.learner.kl_penalty(whole)
            extra["policy/kl"] = (penalty.sum() / self.objective.kl_coef / whole.mask.sum()).item()
        if self.critic is None:
            return with_advantages(groups, self.objective, self.weights, penalty), None, extra
        settings = self.stage.critic
        done, valued = with_token_advantages(
            groups, self.objective, whole, self.critic, penalty, settings.gamma, settings.lam
        )
        return done, valued, extra

    def _update(self, groups: list[Group], valued: Valued | None, step: int) -> list[StepReport]:
        o = self.stage.optimizer
        rate = rate_at(self.stage, step)
        parts = split(groups, o.updates_per_batch)
        several = len(parts) * o.epochs > 1
        if self.view is not None:
            self.view.doing("learning")
        batches: list[Batch] = [
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
                    loss = self._update_critic(valued.part(index, len(batches)), rate)
                    report = StepReport({**report.metrics, "critic/loss": loss})
                reports.append(report)
        return reports

    def _update_critic(self, valued: Valued, policy_rate: float) -> float:
        assert self.critic is not None
        own = self.stage.critic.learning_rate
        rate = policy_rate if own is None else own
        return self.critic.update(valued.batch, valued.returns, valued.values, rate)

    def _move_reference(self, step: int) -> None:
        settings, reference = self.stage.reference, self.learner.reference
        if reference is None or reference.adapter_off:
            return
        if (settings.update_every and step % settings.update_every == 0) or (
            settings.ema is not None and not settings.update_every
        ):
            reference.refresh(settings.ema)

    def save(self, step: int) -> None:
        """A checkpoint of now."""
        directory = self.run.directory / "checkpoints"
        save_checkpoint(
            directory,
            step,
            self.policy,
            self.learner.optimizer,
            {"ledger": self.stream.ledger.state()},
            self.stream.settle(),
            self.learner.reference,
            self.critic,
        )
        prune(directory, self.stage.run.keep_checkpoints)


def run_grpo(run: StageRun, parts: GrpoParts) -> Policy:
    """Train a stage from its start or its last checkpoint to its end. Returns the trained policy."""
    stage = run.stage
    checkpoint = latest_checkpoint(run.directory / "checkpoints")
    policy = (
        resumed_policy(stage, checkpoint.path) if checkpoint else build_policy(stage, run.seed, run.start, run.live)
    )
    log = MetricsLog(run.directory / "metrics.jsonl")
    first = checkpoint.step if checkpoint else -1
    log.keep_until(first)
    run.forget_after(first)
    _warn(run, parts)
    run.console.plan(run.title, grpo_plan(stage, parts.objective, policy, run.threads, parts.task.train.size))
    with ExitStack() as stack:
        with readable(checkpoint):
            grpo = _Grpo(run, parts, policy, checkpoint, stack)
        before = run.evaluation_at(0)
        if checkpoint is None:
            before = grpo.evaluate(0)
            log.write(0, before)
        if before:
            run.console.accuracy_table([("before", before)], parts.verifier.name)
        done = checkpoint.step if checkpoint else 0
        with run.console.steps("grpo", stage.run.steps, done) as view, _saving_on_error(grpo, run):
            grpo.view = view
            for step in range(done + 1, stage.run.steps + 1):
                metrics = grpo.step(step)
                last = step == stage.run.steps
                if last or (stage.run.evaluate_every and step % stage.run.evaluate_every == 0):
                    metrics |= grpo.evaluate(step)
                log.write(step, metrics)
                grpo.whole, grpo.touched = step, False
                view.step(step, metrics)
                if run.saves_at(step):
                    grpo.save(step)
    return policy


def _warn(run: StageRun, parts: GrpoParts) -> None:
    """Say what is legal and probably not meant."""
    staleness = run.stage.rollout.max_staleness
    if staleness and parts.objective.correction == "off" and not bypasses(run.stage):
        run.console.warn(
            f"rollouts may be {staleness} updates old (rollout.max_staleness) and nothing corrects for it: set "
            'objective.bypass = true, or objective.correction = "token_truncate"'
        )


@contextmanager
def _saving_on_error(grpo: _Grpo, run: StageRun) -> Iterator[None]:
    """When a step fails for a reason the person can mend, before it has moved the weights, keep what was trained. The
    ledger still has the failed step's prompts in flight. Later failures go back to the last checkpoint.
    """
    try:
        yield
    except UserError:
        there = (run.directory / "checkpoints" / f"step-{grpo.whole:06d}").exists()
        if grpo.whole and not grpo.touched and not there:
            grpo.save(grpo.whole)
        if grpo.whole:
            run.console.say("  what was trained is saved; mend the cause and continue with --resume")
        raise
