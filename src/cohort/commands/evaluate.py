"""`cohort eval`: held-out accuracy of a model, alone or paired with another on the same problems."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from cohort.backends.base import open_sampler
from cohort.commands.door import argument
from cohort.commands.model import load_model
from cohort.commands.place import absolute, full_path, told_apart
from cohort.evaluate import Accuracy, evaluate
from cohort.evaluate.intervals import Paired, paired
from cohort.machine import quiet_libraries
from cohort.preflight.parts import SamplingParts, open_parts
from cohort.recipe import Recipe
from cohort.rewards import RewardPool
from cohort.tasks.guess import guess_source
from cohort.train.directory import as_it_lies
from cohort.train.evaluation import held_out
from cohort.train.place import where_trained
from cohort.types import UnreadableError, UserError
from cohort.views.console import Console


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Held-out accuracy by `verifier`: the `eval/` metrics of each model, and the first one minus the other, greedy and
    sampled, where there are two. `data` says what was taken from a file whose columns nobody named.
    """

    data: str
    verifier: str
    models: dict[str, dict[str, float]]
    difference: dict[str, Paired]


def run_evaluation(
    model: str, task: str | None, overrides: Sequence[str], samples: int, problems: int, against: str | None, seed: int
) -> Evaluation:
    """Measure a model, and with `against` another one on the same problems."""
    if model == against:
        raise UserError("--against names the model itself; name another one")
    quiet_libraries()
    names = {name: full_path(name) for name in (model, against) if name is not None}
    overrides = absolute(overrides)  # before the process goes elsewhere
    with where_trained(names[model]) if task is None else contextlib.nullcontext():
        data, verifier, found = _found(names, task, overrides, samples, problems, seed)
    models = {name: {k: v for one in of for k, v in one.metrics().items()} for name, of in found.items()}
    difference = {}
    if against is not None:
        for ours, theirs in zip(found[model], found[against], strict=True):
            difference[ours.name] = paired(ours.per_problem, theirs.per_problem)
    return Evaluation(data, verifier, models, difference)


def show(console: Console, found: Evaluation) -> None:
    """The accuracy table, and the difference of two models."""
    if found.data:
        console.say(f"[dim]data[/]  {escape(found.data)}")
    names = told_apart(list(found.models))
    console.evaluations(list(zip(names, found.models.values(), strict=True)), found.verifier)
    for name, one in found.difference.items():
        interval = f"{one.mean:+.1%} [{one.low:+.1%}, {one.high:+.1%}]"
        console.say(escape(f"  {name}: {' minus '.join(names)} is {interval} on {one.problems} problems"))


def _recipe(model: str, task: str | None, overrides: Sequence[str], problems: int) -> tuple[str, Recipe]:
    """The run's own recipe, when a run was given and no other task; else a recipe made of what was said, and what was
    taken for it.
    """
    saved = Path(model, "recipe.toml")
    if saved.is_file() and task is None:
        return "", as_it_lies(Recipe.load(saved, [f"evaluate.problems={problems}", *overrides]))
    if task is None and not Path(model).exists():
        raise UnreadableError(f"there is no run '{model}' here; of a hub id say --task, what to evaluate on")
    if task is None:
        raise UserError(
            f"'{model}' is not a run, so it does not say what to evaluate on; say --task word_problems or a file"
        )
    pairs = [override.partition("=") for override in overrides]
    named = {key.removeprefix("task."): value for key, _, value in pairs if key.startswith("task.")}
    with argument():
        found = guess_source(task, named.get("split", "train"), named.get("config"), named, "grpo")
    reward = found.reward or {"use": "exact_number"}
    tables = {
        "name": "evaluation",
        "policy": {"model": model},
        "task": {"source": task, "held_out": task, **found.task},
        "rollout": {"max_tokens": 256, "prompts_per_step": 1},
        "reward": reward,
        "evaluate": {"problems": problems},
    }
    return "; ".join([*found.took, f"the reward {reward['use']}"]), Recipe.from_tables(tables, overrides)


def _found(
    names: dict[str, str], task: str | None, overrides: Sequence[str], samples: int, problems: int, seed: int
) -> tuple[str, str, dict[str, tuple[Accuracy, ...]]]:
    """What was taken of the data, the verifier, and what it makes of each model."""
    name, path = next(iter(names.items()))
    data, recipe = _recipe(path, task, overrides, problems)
    stage = recipe.stages[-1]
    if not stage.reward and stage.evaluate.reward is None:
        raise UserError(
            f"the last stage of {name} ({stage.kind}) has no reward that says what is right; say --task, or "
            "evaluate.reward=NAME"
        )
    parts = open_parts(stage, seed)
    if parts.task.held_out is None:
        raise UserError(
            "this task has no held-out problems: add task.held_out=FILE (or a share such as task.held_out=0.1)"
        )
    models = {name: _measure(path, recipe, parts, samples, seed) for name, path in names.items()}
    return data, parts.verifier_name, models


def _measure(model: str, recipe: Recipe, parts: SamplingParts, samples: int, seed: int) -> tuple[Accuracy, ...]:
    stage = recipe.stages[-1]
    policy = load_model(model, compute=stage.policy.compute, device=stage.policy.device)
    facts = policy.facts()
    prompts, _ = held_out(stage, parts, facts)
    if not prompts:
        raise UserError(f"no held-out prompt fits {model}: lower rollout.max_tokens")

    play = parts.world.player(facts.tokenizer, facts.eos_ids, open_sampler(policy, stage.rollout))
    with (
        closing(parts.world),
        RewardPool(
            parts.verifiers, stage.run.workers, stage.run.retries, pass_environment=stage.run.pass_environment
        ) as pool,
    ):
        return tuple(
            evaluate(play, prompts, pool, stage.evaluate.sampling(stage.rollout, greedy), count, seed)
            for greedy, count in ((True, 1), (False, samples))
            if count
        )
