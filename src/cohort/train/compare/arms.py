"""The arms of a comparison: recipes of one stage that begin from the same weights, each a run of its own."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cohort.recipe import Recipe
from cohort.record.files import write_bytes
from cohort.settings import Reward, Stage
from cohort.train.compare.controls import CONTROLS, controlled
from cohort.train.directory import as_kept, changes, has_begun, run_directory, stage_directory
from cohort.train.models import begins_with, data_of, waits_for
from cohort.train.run import prepare, train
from cohort.types import UnreadableError, UserError
from cohort.views.console import Console
from cohort.wording import another, did_you_mean

AS_IT_IS = "as it is"
BEFORE = "before"  # the run of the stages that come before the one that is compared


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train the stage: a recipe for each seed."""

    label: str
    says: str
    recipes: tuple[Recipe, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is trained: the stages `before`, once, if the compared stage needs any; then every arm."""

    directory: Path
    recipe: Recipe
    stage: Stage
    before: Recipe | None
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]


def comparison(recipe: Recipe, controls: Sequence[str], seeds: int) -> Comparison:
    """The arms for the last GRPO stage of a recipe: as it is, and by every control. Raises `UserError` for what cannot
    be compared, before anything is trained.
    """
    for name in controls:
        if name not in CONTROLS:
            known = ", ".join(CONTROLS)
            raise UnreadableError(f"there is no control '{name}'{did_you_mean(name, CONTROLS)}; there are {known}")
    index = max((i for i, stage in enumerate(recipe.stages) if stage.kind == "grpo"), default=-1)
    if index < 0:
        raise UserError("the recipe has no grpo stage, so there are no rewards to compare with others")
    if data_of(recipe, index) is not None:
        raise UserError(
            f"the prompts of stage '{recipe.stages[index].name}' are made by another stage: name their file"
        )
    directory = Path(recipe.stages[-1].run.directory).expanduser() / f"{recipe.name}-compare"
    _refuse_without_evaluation(recipe, index)
    before = _before(recipe, index, directory)
    stage = _alone(recipe, index, before, directory)
    ways = [(AS_IT_IS, stage, "the recipe's own rewards"), *((name, *controlled(stage, name)) for name in controls)]
    numbers = tuple(recipe.seed + number for number in range(seeds))
    arms = tuple(
        Arm(label, says, tuple(_of(recipe, label, one, seed) for seed in numbers)) for label, one, says in ways
    )
    return Comparison(directory, recipe, stage, before, arms, numbers)


def train_arms(compared: Comparison, console: Console) -> None:
    """Train what is not trained yet: what is finished is only looked at, what was interrupted goes on. Raises
    `UserError` where the directory has another comparison.
    """
    kept = compared.directory / "recipe.toml"
    if kept.exists() and (listed := changes(kept, compared.recipe)):
        raise UserError(
            f"{compared.directory} compares another recipe: {'; '.join(listed[:5])}. Restore the recipe, or begin "
            f"another comparison with {another()}."
        )
    compared.directory.mkdir(parents=True, exist_ok=True)
    write_bytes(kept, as_kept(compared.recipe).encode())
    runs = [(arm.label, arm.says, recipe) for arm in compared.arms for recipe in arm.recipes]
    if compared.before is not None:
        runs.insert(0, (BEFORE, "the stages before it, once for all", compared.before))
    for number, (label, says, recipe) in enumerate(runs, start=1):
        console.say(f"\n[bold]run {number} of {len(runs)}, {label}[/]: {says}")
        train(recipe, resume=has_begun(run_directory(recipe)), console=console)


def _refuse_without_evaluation(recipe: Recipe, index: int) -> None:
    """Refuse what would be trained for nothing: without held-out problems, which are the same for all arms, no arm can
    be told from another.
    """
    table, prepared = recipe.stages[index].evaluate, prepare(recipe)
    parts = prepared[index].prepared.parts
    for one in prepared:
        if one.prepared.parts is not None:
            one.prepared.parts.world.close()
        for suite in one.suites:
            suite.parts.world.close()
    if parts is None or parts.task.held_out is None:
        raise UserError(
            "the recipe has no held-out problems to compare by: add task.held_out=FILE (or a share, task.held_out=0.1)"
        )
    if not table.problems or not (table.greedy or table.samples):
        raise UserError("the recipe evaluates nothing to compare by: set evaluate.problems, and greedy or samples")


def _before(recipe: Recipe, index: int, directory: Path) -> Recipe | None:
    """The stages before the one at `index`, if it begins with the model of one of them, or is scored by one."""
    stage, first = recipe.stages[index], recipe.stages[:index]
    begins = begins_with(recipe, index) is not None
    return _recipe(recipe, BEFORE, recipe.seed, first, directory) if first and (begins or waits_for(stage)) else None


def _alone(recipe: Recipe, index: int, before: Recipe | None, directory: Path) -> Stage:
    """The stage as one that needs no other, trained to its last step: all arms have the same budget, and none is
    chosen by the held-out problems that compare them.
    """
    stage = recipe.stages[index]
    changes = {"keep_best": None, "stop": None, "save_rollouts": True, "directory": str(directory)}
    stage = stage.model_copy(update={"run": stage.run.model_copy(update=changes)})
    if before is None:
        return stage
    finals = {one.name: stage_directory(before, i) / "final" for i, one in enumerate(before.stages)}
    waiting = waits_for(stage)

    def ready(reward: Reward) -> Reward:
        if reward.name not in waiting:
            return reward
        return reward.model_copy(
            update={"args": {**reward.args, "model": str(finals[waiting[reward.name]].absolute())}}
        )

    stage = stage.model_copy(update={"reward": tuple(map(ready, stage.reward))})
    if (start := begins_with(recipe, index)) is None:
        return stage
    model = str(finals[recipe.stages[start].name])
    return stage.model_copy(update={"policy": stage.policy.model_copy(update={"model": model})})


def _of(recipe: Recipe, label: str, stage: Stage, seed: int) -> Recipe:
    name = label.replace(" ", "_") + (f"-seed{seed}" if seed != recipe.seed else "")
    return _recipe(recipe, name, seed, (stage,), Path(stage.run.directory))


def _recipe(recipe: Recipe, name: str, seed: int, stages: Sequence[Stage], directory: Path) -> Recipe:
    """A recipe of its own, read from what a run would keep of it."""

    def here(stage: Stage) -> Stage:
        return stage.model_copy(update={"run": stage.run.model_copy(update={"directory": str(directory)})})

    changed = {"name": name, "seed": seed, "stages": tuple(map(here, stages))}
    return Recipe.from_tables(tomllib.loads(as_kept(recipe.model_copy(update=changed))))
