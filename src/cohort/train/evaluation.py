"""Evaluations of a stage: which prompts, which verifiers, and what is kept of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from cohort.environments import Player
from cohort.evaluate import evaluate
from cohort.policy.policy import PolicyFacts
from cohort.preflight.parts import SamplingParts
from cohort.rewards import RewardPool
from cohort.seeds import derive_seed
from cohort.settings import Stage
from cohort.tasks.render import held_out_prompts, prompt_limit
from cohort.train.stage import Context
from cohort.types import Prompt, UserError


def held_out(stage: Stage, parts: SamplingParts, facts: PolicyFacts) -> tuple[list[Prompt], int]:
    """What evaluations of a stage ask, and how many held-out prompts are too long for that."""
    table, renderer = stage.evaluate, parts.task.renderer(facts.tokenizer)
    if table.max_tokens is None:
        longest, key = stage.rollout.max_tokens, "rollout.max_tokens"
    else:
        longest, key = table.max_tokens, "evaluate.max_tokens"
    limit = prompt_limit(facts.context, longest, stage.task.max_prompt_tokens, key)
    return held_out_prompts(parts.task.held_out, renderer, limit, stage.task.too_long, table.problems)


class Evaluator:
    """Measures held-out accuracy. What is odd about the held-out prompts is said once, when this is made; the worker
    that scores them belongs to `stack`.
    """

    def __init__(
        self,
        context: Context,
        parts: SamplingParts,
        facts: PolicyFacts,
        play: Player,
        stack: ExitStack,
        on_group: Callable[[], None] = lambda: None,
    ):
        self._context, self._play, self._on_group = context, play, on_group
        log, run = context.directory / "rewards.log", context.stage.run
        say, given = context.console.warn, run.pass_environment
        pool = RewardPool(parts.verifiers, 1, run.retries, log=log, pass_environment=given, say=say)
        self._pool = stack.enter_context(pool)
        self._prompts, too_long = held_out(context.stage, parts, facts)
        warn = context.console.warn
        if too_long:
            warn(f"{too_long} held-out prompts are longer than the model's context leaves room for")
        if too_long and not self._prompts:
            raise UserError("all held-out prompts are too long: lower rollout.max_tokens, or set task.too_long")
        if self._prompts and (both := parts.task.overlap()):
            warn(f"{both} held-out questions are also trained on, so their accuracy proves little")

    def __call__(self, step: int) -> dict[str, float]:
        """Accuracy of the current weights, greedy and sampled, as metrics; every completion goes to disk."""
        context, metrics = self._context, {}
        table = context.stage.evaluate
        for greedy, samples in ((True, int(table.greedy)), (False, table.samples)):
            if not samples or not self._prompts:
                continue
            sampling, seed = table.sampling(context.stage.rollout, greedy), derive_seed(context.seed, "evaluate")
            result = evaluate(self._play, self._prompts, self._pool, sampling, samples, seed, self._on_group)
            metrics.update(result.metrics())
            if result.failed:
                metrics["eval/failed"] = metrics.get("eval/failed", 0.0) + result.failed
                why = next(group.error for group in result.groups if group.error is not None)
                context.console.warn(
                    f"{result.failed} of {len(self._prompts)} held-out problems could not be scored and are left out "
                    f"of the {result.name} accuracy: {why}"
                )
            if context.stage.run.save_rollouts:
                context.check()
                context.recorder.evaluation(result.groups, step, result.name)
        return metrics
