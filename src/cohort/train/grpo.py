"""The loop: prompt, group, rewards, advantages, batch, update, record."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from cohort.engine.engine import Engine
from cohort.environments import Player
from cohort.monitor.console import StepView
from cohort.monitor.machine import peak_memory_gb
from cohort.monitor.metrics import group_metrics
from cohort.monitor.scoring import scoring_metrics
from cohort.monitor.tasks import task_metrics
from cohort.policy.policy import Policy
from cohort.record.metrics import MetricsLog
from cohort.record.rollouts import write_groups
from cohort.rewards import Combination, RewardPool
from cohort.seeds import derive_seed
from cohort.train.checkpoint import Checkpoint, latest_checkpoint, prune, readable, save_checkpoint
from cohort.train.evaluation import Evaluator
from cohort.train.plan import grpo_plan
from cohort.train.process import token_steps
from cohort.train.setup import (
    GrpoParts,
    RenderedPrompts,
    build_policy,
    bypasses,
    prompt_limit,
    refuse_long_prompts,
    resumed_policy,
    training_sampling,
)
from cohort.train.stage_run import StageRun
from cohort.train.stream import GroupStream, StepGroups, StreamSettings
from cohort.train.updates import Updates
from cohort.types import Group, UserError

__all__ = ["run_grpo"]


def run_grpo(run: StageRun, parts: GrpoParts) -> Policy:
    """Train a stage from its start or its last checkpoint to its end. Returns the trained policy."""
    stage = run.stage
    checkpoint = latest_checkpoint(run.directory / "checkpoints")
    with readable(checkpoint):
        start = resumed_policy(stage, checkpoint.path) if checkpoint else None
    policy = start or build_policy(stage, run.seed, run.start, run.live)
    log = MetricsLog(run.directory / "metrics.jsonl")
    recorded = checkpoint.step if checkpoint else -1
    log.keep_until(recorded)
    run.forget_after(recorded)
    _warn(run, parts)
    run.console.plan(run.title, grpo_plan(stage, parts.objective, policy, run.threads, parts.task.train.size))

    with ExitStack() as stack:
        with readable(checkpoint):
            grpo = _Grpo(run, parts, policy, checkpoint, stack)
        if checkpoint is None:
            log.write(0, grpo.evaluator.evaluate(0))
        if before := run.evaluation_at(0):
            run.console.accuracy_table([("before", before)], parts.verifier_name)
        with run.console.steps("grpo", stage.run.steps, grpo.whole) as view, _saving_on_error(grpo):
            grpo.view = view
            for step in range(grpo.whole + 1, stage.run.steps + 1):
                metrics = grpo.step(step)
                if run.evaluates_at(step):
                    metrics |= grpo.evaluate(step)
                log.write(step, metrics)
                grpo.whole, grpo.touched = step, False
                view.step(step, metrics)
                if run.saves_at(step):
                    grpo.save()
    return policy


class _Grpo:
    """The parts of one GRPO stage, wired together, and one step of them."""

    def __init__(
        self, run: StageRun, parts: GrpoParts, policy: Policy, checkpoint: Checkpoint | None, stack: ExitStack
    ):
        self.run, self.stage, self.policy = run, run.stage, policy
        self.whole = checkpoint.step if checkpoint else 0  # the last step that is done and recorded
        self.touched = False  # whether the weights have moved since
        self.view: StepView | None = None
        self.combination = Combination.of(parts.rewards)
        self._doing, self._sampled = "sampling", 0  # what the live line says, and of how many groups
        self._said_short = self._said_lost = False

        self.updates = Updates(run, parts, policy, checkpoint)
        self.engine = Engine(policy, max_rows=run.stage.rollout.max_rows)
        self.engine.publish(self.whole)
        log = run.directory / "rewards.log"
        workers, retries = run.stage.run.workers, run.stage.run.retries
        pool = stack.enter_context(RewardPool(parts.rewards, workers=workers, retries=retries, log=log))
        verifier = stack.enter_context(RewardPool(parts.verifiers, workers=1, retries=retries, log=log))
        stack.callback(parts.world.close)
        play = parts.world.player(policy.tokenizer, policy.eos_ids, self.engine)
        self.stream = self._stream(parts, play, pool, checkpoint)
        self.evaluator = Evaluator(run, parts, policy, play, verifier, self._one_group_sampled)

    def step(self, step: int) -> dict[str, float]:
        """One training step: its metrics."""
        began = time.perf_counter()
        self._doing, self._sampled = "sampling", 0
        groups = self.stream.next(step)
        sampled = time.perf_counter()
        self.touched = True
        if self.view is not None:
            self.view.doing("learning")
        trained, report = self._learn(groups.kept, step)
        self.engine.publish(step)
        self.updates.move_reference(step)
        self.stream.finish(groups)
        ended = time.perf_counter()

        if self.stage.run.save_rollouts:
            file = self.run.directory / "log" / f"step-{step:06d}.parquet"
            write_groups(file, [*trained, *groups.left_out], step)
        self._show(step, trained, groups)
        metrics = group_metrics(trained, groups.left_out) | scoring_metrics(self.combination, groups.outcomes) | report
        used = report.get("tokens/trained", 0.0) / self.stage.optimizer.epochs  # once, however often they were passed
        metrics |= task_metrics((*trained, *groups.left_out)) | self.stream.ledger.metrics()
        return metrics | {
            "tokens/wasted": metrics["tokens/sampled"] - used,
            "prompts/too_long": float(groups.too_long),
            "time/step_s": ended - began,
            "time/sample_s": groups.sample_s,
            "time/score_s": groups.score_s,
            "time/learn_s": ended - sampled,
            "memory/peak_gb": peak_memory_gb(),
            "tokens_per_s": metrics["tokens/sampled"] / max(ended - began, 1e-9),
        }

    def evaluate(self, step: int) -> dict[str, float]:
        """Held-out accuracy of the current weights, as metrics."""
        self._doing, self._sampled = "evaluating", 0
        return self.evaluator.evaluate(step)

    def save(self) -> None:
        """A checkpoint of the last whole step."""
        directory = self.run.directory / "checkpoints"
        save_checkpoint(
            directory,
            self.whole,
            self.policy,
            self.updates.learner.optimizer,
            {"ledger": self.stream.ledger.state()},
            self.stream.settle(),
            self.updates.reference,
            self.updates.critic,
        )
        prune(directory, self.stage.run.keep_checkpoints)

    def _learn(self, kept: list[Group], step: int) -> tuple[list[Group], dict[str, float]]:
        if not kept:
            return [], {}
        trained, valued, metrics = self.updates.advantages(kept)
        return trained, self.updates.update(trained, valued, step) | metrics

    def _stream(self, parts: GrpoParts, play: Player, pool: RewardPool, checkpoint: Checkpoint | None) -> GroupStream:
        stage, train = self.stage, parts.task.train
        renderer, limit = parts.task.renderer(self.policy.tokenizer), prompt_limit(stage, self.policy)
        prompts = RenderedPrompts(train, renderer, limit, stage.task.too_long)
        if stage.task.too_long == "error":
            refuse_long_prompts(prompts, train)
        ledger = parts.task.tickets(
            derive_seed(self.run.seed, "ledger"), checkpoint.state["ledger"] if checkpoint else None
        )
        settings = StreamSettings(
            prompts_per_step=stage.rollout.prompts_per_step,
            group_size=stage.rollout.group_size,
            sampling=training_sampling(stage),
            max_staleness=stage.rollout.max_staleness,
            zero_std=parts.objective.zero_std,
            resample_cap=stage.rollout.resample_cap,
            combination=self.combination,
            failure_budget=stage.run.failure_budget,
            failure_window=stage.run.failure_window,
            seed=self.run.seed,
        )
        decode = functools.partial(self.policy.tokenizer.decode, skip_special_tokens=True)
        stream = GroupStream(
            *(prompts, ledger, play, pool, settings, self._one_group_sampled),
            to_steps=functools.partial(token_steps, decode=decode),
        )
        if checkpoint is not None:
            stream.restore(checkpoint.pending())
        return stream

    def _one_group_sampled(self) -> None:
        self._sampled += 1
        if self.view is not None:
            self.view.doing(f"{self._doing} {self._sampled}")

    def _show(self, step: int, trained: list[Group], groups: StepGroups) -> None:
        """A sampled group from time to time; the first group that was lost, and the first step without enough to train
        on.
        """
        every = self.stage.run.show_group_every
        if every and step % every == 0 and trained:
            self.run.console.group(step, next((g for g in trained if g.disposition == "trained"), trained[0]))
        lost = next((group.error for group in groups.left_out if group.error is not None), None)
        if lost is not None and not self._said_lost:
            self._said_lost = True
            self.run.console.warn(f"step {step} lost a group: {lost} (said once; see groups/failed)")
        short = self.updates.objective.zero_std == "resample" and len(trained) < self.stage.rollout.prompts_per_step
        if (short or not trained) and not self._said_short:
            self._said_short = True
            self.run.console.warn(
                f"step {step} trains on {len(trained)} groups: {len(groups.left_out)} were left out as without signal. "
                "The task is too hard, too easy, or the reward says nothing (said once; see groups/left_out)"
            )


def _warn(run: StageRun, parts: GrpoParts) -> None:
    """Say what is legal and probably not meant."""
    staleness = run.stage.rollout.max_staleness
    if staleness and parts.objective.correction == "off" and not bypasses(run.stage):
        run.console.warn(
            f"rollouts may be {staleness} updates old (rollout.max_staleness) and nothing corrects for it: set "
            'objective.bypass = true, or objective.correction = "token_truncate"'
        )


@contextmanager
def _saving_on_error(grpo: _Grpo) -> Iterator[None]:
    """When a step fails for a reason the person can mend, before it has moved the weights, keep what was trained. The
    ledger still has the failed step's prompts in flight. Later failures go back to the last checkpoint.
    """
    try:
        yield
    except UserError:
        there = (grpo.run.directory / "checkpoints" / f"step-{grpo.whole:06d}").exists()
        if grpo.whole and not grpo.touched and not there:
            grpo.save()
        if last := latest_checkpoint(grpo.run.directory / "checkpoints"):
            grpo.run.console.say(f"  saved up to step {last.step}; mend the cause and continue with --resume")
        raise
