"""`cohort eval`: held-out accuracy of a model, alone or paired with another on the same problems."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from cohort.backends.base import open_sampler
from cohort.evaluate import Accuracy, evaluate
from cohort.evaluate.intervals import paired
from cohort.machine import quiet_libraries
from cohort.policy.facts import facts_of
from cohort.policy.load import load_policy
from cohort.preflight.parts import SamplingParts, open_parts
from cohort.recipe import Recipe
from cohort.rewards import RewardPool
from cohort.train.evaluation import held_out
from cohort.types import UserError
from cohort.views.console import Console

__all__ = ["run_evaluation"]


def run_evaluation(
    model: str, task: str | None, overrides: Sequence[str], samples: int, problems: int, against: str | None, seed: int
) -> None:
    """Print the accuracy table, and with `against` the difference of the two models with its 95% interval."""
    quiet_libraries()
    recipe = _recipe(model, task, overrides, problems)
    stage = recipe.stages[-1]
    if not stage.reward and stage.evaluate.reward is None:
        raise UserError(
            f"the last stage of {model} ({stage.kind}) has no reward that says what is right; say --task, or "
            "evaluate.reward=NAME"
        )
    parts = open_parts(stage, seed)
    if parts.task.held_out is None:
        raise UserError(
            "this task has no held-out problems: add task.held_out=FILE (or a share such as task.held_out=0.1)"
        )
    console = Console()
    rows, measured = [], []
    for name in [model, *([against] if against else [])]:
        accuracies = _measure(name, recipe, parts, samples, seed)
        rows.append((name, {k: v for accuracy in accuracies for k, v in accuracy.metrics().items()}))
        measured.append(accuracies)
    console.accuracy_table(rows, parts.verifier_name)
    if against:
        for ours, theirs in zip(*measured, strict=True):
            found = paired(ours.per_problem, theirs.per_problem)
            interval = f"{found.mean:+.1%} [{found.low:+.1%}, {found.high:+.1%}]"
            console.say(f"  {ours.name}: {model} minus {against} is {interval} on {found.problems} problems")


def _recipe(model: str, task: str | None, overrides: Sequence[str], problems: int) -> Recipe:
    """The run's own recipe, when a run was given and no other task; else a recipe made of what was said."""
    saved = Path(model, "recipe.toml")
    if saved.is_file() and task is None:
        return Recipe.load(saved, [f"evaluate.problems={problems}", *overrides])
    if task is None:
        raise UserError(
            f"'{model}' is not a run, so it does not say what to evaluate on; say --task word_problems or a file"
        )
    tables = {
        "name": "evaluation",
        "policy": {"model": model},
        "task": {"source": task, "held_out": task},
        "rollout": {"max_tokens": 256, "prompts_per_step": 1},
        "reward": "exact_number",
        "evaluate": {"problems": problems},
    }
    return Recipe.from_tables(tables, overrides)


def _measure(model: str, recipe: Recipe, parts: SamplingParts, samples: int, seed: int) -> tuple[Accuracy, ...]:
    stage = recipe.stages[-1]
    policy = load_policy(model, compute=stage.policy.compute, device=stage.policy.device, trainable=False)
    facts = facts_of(policy)
    prompts, _ = held_out(stage, parts, facts)
    if not prompts:
        raise UserError(f"no held-out prompt fits {model}: lower rollout.max_tokens")

    play = parts.world.player(facts.tokenizer, facts.eos_ids, open_sampler(policy, stage.rollout))
    with (
        closing(parts.world),
        RewardPool(parts.verifiers, workers=stage.run.workers, retries=stage.run.retries) as pool,
    ):
        return tuple(
            evaluate(play, prompts, pool, stage.evaluate.sampling(stage.rollout, greedy), count, seed)
            for greedy, count in ((True, 1), (False, samples))
            if count
        )
