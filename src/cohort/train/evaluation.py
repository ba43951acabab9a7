"""Evaluations of a stage: which prompts, which verifiers, and what is kept of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from cohort.environments import Player
from cohort.evaluate import evaluate
from cohort.evaluate.traces import use_of_traces
from cohort.policy.policy import PolicyFacts
from cohort.policy.text import reader
from cohort.preflight.parts import SamplingParts
from cohort.rewards import RewardPool
from cohort.seeds import derive_seed
from cohort.settings import Stage
from cohort.tasks.render import held_out_prompts, prompt_limit
from cohort.train.choosing import halves
from cohort.train.stage import Context
from cohort.types import Prompt, Sampler, UserError


def held_out(stage: Stage, parts: SamplingParts, facts: PolicyFacts) -> tuple[list[Prompt], int]:
    """What evaluations of a stage ask, and how many held-out prompts are too long for that."""
    table, renderer = stage.evaluate, parts.task.renderer(facts.tokenizer)
    if table.max_tokens is None:
        longest, key = stage.rollout.max_tokens, "rollout.max_tokens"
    else:
        longest, key = table.max_tokens, "evaluate.max_tokens"
    limit = prompt_limit(facts.context, longest, stage.task.max_prompt_tokens, key)
    return held_out_prompts(parts.task.held_out, renderer, limit, stage.task.too_long, table.problems)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Problems that are asked in every evaluation; `name` is that of the suite, "" of the held-out problems."""

    name: str
    stage: Stage
    prompts: list[Prompt]
    play: Player
    pool: RewardPool


class Evaluator:
    """Measures held-out accuracy, and the suites of the stage. What is odd about the problems is said once, when this
    is made; the workers that score them belong to `stack`. `parts` is None where nothing but suites is asked.
    """

    def __init__(
        self,
        context: Context,
        parts: SamplingParts | None,
        facts: PolicyFacts,
        sampler: Sampler,
        stack: ExitStack,
        on_group: Callable[[], None] = lambda: None,
    ):
        self._context, self._on_group, self._facts = context, on_group, facts
        self._read, self._asked = reader(facts.tokenizer, facts.eos_ids), list[_Asked]()
        asked = [] if parts is None else [("", context.stage, parts)]
        for suite in context.suites:
            stack.callback(suite.parts.world.close)
            asked.append((suite.table.name, suite.stage, suite.parts))
        log, warn = context.directory / "rewards.log", context.console.warn
        for name, stage, of in asked:
            given = stage.run.pass_environment
            pool = RewardPool(of.verifiers, 1, stage.run.retries, log=log, pass_environment=given, say=warn)
            stack.enter_context(pool)
            prompts, too_long = held_out(stage, of, facts)
            where = f"suite '{name}': " if name else ""
            if too_long:
                warn(f"{where}{too_long} held-out prompts are longer than the model's context leaves room for")
            if too_long and not prompts:
                lower = "lower rollout.max_tokens, or set task.too_long"
                raise UserError(f"{where}all held-out prompts are too long: {lower}")
            play = of.world.player(facts.tokenizer, facts.eos_ids, sampler)
            self._asked.append(_Asked(name, stage, prompts, play, pool))

    def __call__(self, step: int) -> dict[str, float]:
        """Accuracy of the current weights, greedy and sampled, as metrics, those of a suite below its name; every
        completion goes to disk.
        """
        metrics: dict[str, float] = {}
        self._halves: dict[str, float] = {}
        for asked in self._asked:
            found = self._measure(asked, step)
            prefix = f"eval/{asked.name}/" if asked.name else "eval/"
            metrics |= {prefix + key.removeprefix("eval/"): value for key, value in found.items()}
        return metrics | self._halves

    def _measure(self, asked: _Asked, step: int) -> dict[str, float]:
        context, metrics = self._context, {}
        table = asked.stage.evaluate
        for greedy, samples in ((True, int(table.greedy)), (False, table.samples)):
            if not samples or not asked.prompts:
                continue
            sampling, seed = table.sampling(asked.stage.rollout, greedy), derive_seed(context.seed, "evaluate")
            result = evaluate(
                *(asked.play, asked.prompts, asked.pool, sampling, samples, seed, self._on_group),
                cluster=table.cluster,
            )
            metrics.update(result.metrics())
            self._halves |= halves(result, context.stage.run, asked.name)
            of = f"{asked.name}-" if asked.name else ""
            if result.failed:
                metrics["eval/failed"] = metrics.get("eval/failed", 0.0) + result.failed
                why = next(group.error for group in result.groups if group.error is not None)
                context.console.warn(
                    f"{result.failed} of {len(asked.prompts)} held-out problems could not be scored and are left out "
                    f"of the {of}{result.name} accuracy: {why}"
                )
            kept = {of + result.name: result.groups}
            if greedy and table.traces:
                use = use_of_traces(
                    *(result, table.traces, asked.play, asked.pool, sampling, seed),
                    *(self._read, self._facts.tokenizer, self._on_group),
                )
                metrics.update(use.metrics())
                kept |= {f"{of}traces": use.groups} if use.groups else {}
            for name, groups in kept.items() if context.stage.run.save_rollouts else ():
                context.check()
                context.recorder.evaluation(groups, step, name)
        return metrics
