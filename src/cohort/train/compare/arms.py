"""The arms of a comparison: recipes of one stage that begin from the same weights, each a run of its own."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cohort.recipe import Recipe
from cohort.settings import Reward, Stage
from cohort.train.compare.controls import CONTROLS, controlled
from cohort.train.compare.ways import BUDGETS, Way, read_vary, refuse_unknown, ways
from cohort.train.directory import as_kept, stage_directory
from cohort.train.models import begins_with, data_of, waits_for
from cohort.train.run import prepare
from cohort.train.stage import kind_of
from cohort.train.unread import unread_keys
from cohort.types import UnreadableError, UserError

AS_IT_IS = "as it is"
BEFORE = "before"  # the run of the stages that come before the one that is compared
Reader = Callable[[Sequence[str]], Recipe]  # the recipe, with overrides beside those that were typed


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person asked for: controls; or methods, values of keys, or both. `typed` are the recipe's overrides."""

    controls: Sequence[str] = ()
    methods: Sequence[str] = ()
    vary: Sequence[str] = ()
    seeds: int = 1
    budget: str = "steps"
    typed: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train the stage: a recipe for each seed."""

    label: str
    says: str
    recipes: tuple[Recipe, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is trained: the stages `before`, once, if the compared stage needs any; then every arm. The first one is
    what the others are compared with, and has all the steps: of tokens or seconds, they get what it used.
    """

    directory: Path
    recipe: Recipe
    stage: Stage
    before: Recipe | None
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    budget: str = "steps"
    controls: bool = True

    @property
    def base(self) -> Arm:
        """The arm that the others are compared with."""
        return self.arms[0]


def comparison(read: Reader, asked: Asked) -> Comparison:
    """The arms for the last GRPO stage of a recipe. Raises `UserError` for what cannot be compared, before anything is
    trained.
    """
    recipe, budget = read(()), asked.budget
    refuse_unknown("budget", budget, BUDGETS)
    for name in asked.controls:
        refuse_unknown("control", name, CONTROLS)
    if asked.controls and (asked.methods or asked.vary):
        raise UnreadableError("--controls change the rewards alone: compare methods or values in another comparison")
    if len(asked.methods) == 1 and not asked.vary:
        raise UnreadableError("--methods takes two or more, such as grpo,ppo")
    index = max((i for i, stage in enumerate(recipe.stages) if stage.kind == "grpo"), default=-1)
    if index < 0:
        raise UserError("the recipe has no grpo stage, so there is nothing to compare")
    if data_of(recipe, index) is not None:
        raise UserError(f"the prompts of stage '{recipe.stages[index].name}' are made by another stage: name the file")
    ending = "" if budget == "steps" else f"-{budget}"
    directory = Path(recipe.stages[-1].run.directory).expanduser() / f"{recipe.name}-compare{ending}"
    _refuse_without_evaluation(recipe, index)
    before = _before(recipe, index, directory)
    alone = partial(_alone, index=index, before=before, directory=directory, budget=budget)
    stage = alone(recipe)
    if asked.controls:
        found: list[tuple[str, tuple[Stage, ...], str]] = [(AS_IT_IS, (stage,), "the recipe's own rewards")]
        for name in asked.controls:
            other, says = controlled(stage, name)
            found.append((name, (other,), says))
    else:
        varied = read_vary(asked.vary, recipe, index)
        listed = ways(recipe, index, asked.typed, asked.methods, varied, budget)
        found = [(way.label, _read_by(way, way.stages(alone(read(way.overrides)))), way.says) for way in listed]
        stage = found[0][1][-1]
    for number, (label, stages, _) in enumerate(found):
        if same := [other for other, known, _ in found[:number] if known == stages]:
            raise UnreadableError(f"{label} trains as {same[0]} does: leave one of them out")
    numbers, names = tuple(recipe.seed + number for number in range(asked.seeds)), _names([one[0] for one in found])
    arms = tuple(
        Arm(label, says, tuple(_of(recipe, names[label], one, seed) for seed in numbers)) for label, one, says in found
    )
    for arm in arms if not (asked.controls or waits_for(recipe.stages[index])) else ():
        _close(prepare(arm.recipes[0]))
    return Comparison(directory, recipe, stage, before, arms, numbers, budget, bool(asked.controls))


def _read_by(way: Way, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The stages of a way, if they read what it varies: else two of its arms would be the same."""
    for key in way.varied:
        table = key.partition(".")[0]
        if not (reading := [stage for stage in stages if table in kind_of(stage).tables]):
            raise UserError(f"--vary: {way.label} would change nothing, as stages of its kind do not read [{table}]")
        if all(key in unread_keys(stage) for stage in reading):
            raise UserError(f"--vary: {way.label} would change nothing, as stages of its kind do not read {key}")
    return stages


def _refuse_without_evaluation(recipe: Recipe, index: int) -> None:
    """Refuse what would be trained for nothing: without held-out problems, which are the same for all arms, no arm can
    be told from another.
    """
    table, prepared = recipe.stages[index].evaluate, prepare(recipe)
    parts = prepared[index].prepared.parts
    _close(prepared)
    if parts is None or parts.task.held_out is None:
        raise UserError("no held-out problems to compare by: add task.held_out=FILE (or a share, task.held_out=0.1)")
    if not table.problems or not (table.greedy or table.samples):
        raise UserError("the recipe evaluates nothing to compare by: set evaluate.problems, and greedy or samples")


def _close(prepared: Sequence[Any]) -> None:
    for one in prepared:
        if one.prepared.parts is not None:
            one.prepared.parts.world.close()
        for suite in one.suites:
            suite.parts.world.close()


def _before(recipe: Recipe, index: int, directory: Path) -> Recipe | None:
    """The stages before the one at `index`, if it begins with the model of one of them, or is scored by one."""
    stage, first = recipe.stages[index], recipe.stages[:index]
    begins = begins_with(recipe, index) is not None
    return _recipe(recipe, BEFORE, recipe.seed, first, directory) if first and (begins or waits_for(stage)) else None


def _alone(recipe: Recipe, index: int, before: Recipe | None, directory: Path, budget: str = "steps") -> Stage:
    """The stage as one that needs no other, trained to its last step: all arms have the same budget, and none is
    chosen by the held-out problems that compare them. Who stops at a budget has no last step to anneal towards.
    """
    stage = recipe.stages[index]
    stage = stage.with_(run={"keep_best": None, "stop": None, "save_rollouts": True, "directory": str(directory)})
    if budget != "steps":
        stage = stage.with_(optimizer={"schedule": "constant"})
    if before is None:
        return stage
    finals = {one.name: stage_directory(before, i) / "final" for i, one in enumerate(before.stages)}
    waiting = waits_for(stage)

    def ready(reward: Reward) -> Reward:
        if reward.name not in waiting:
            return reward
        return reward.with_(args={**reward.args, "model": str(finals[waiting[reward.name]].absolute())})

    stage = stage.with_(reward=tuple(map(ready, stage.reward)))
    start = begins_with(recipe, index)
    return stage if start is None else stage.with_(policy={"model": str(finals[recipe.stages[start].name])})


def _names(labels: Sequence[str]) -> Mapping[str, str]:
    """What the runs of arms are called: the label as a directory may be named, with a hash where two would be one."""
    plain = {
        label: re.sub(r"[^\w.-]+", "-", label.replace(", ", "_").replace(" ", "_")).strip("-.")[:60] for label in labels
    }
    taken = [name.lower() for name in plain.values()]
    return {
        label: name
        if name and taken.count(name.lower()) == 1
        else f"{name}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
        for label, name in plain.items()
    }


def _of(recipe: Recipe, name: str, stages: Sequence[Stage], seed: int) -> Recipe:
    name += f"-seed{seed}" if seed != recipe.seed else ""
    return _recipe(recipe, name, seed, stages, Path(stages[-1].run.directory))


def with_run(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe of an arm with other values of its last stage's [run]."""
    *first, last = recipe.stages
    return _recipe(recipe, recipe.name, recipe.seed, (*first, last.with_(run=changes)), Path(last.run.directory))


def _recipe(recipe: Recipe, name: str, seed: int, stages: Sequence[Stage], directory: Path) -> Recipe:
    """A recipe of its own, read from what a run would keep of it."""
    here = tuple(stage.with_(run={"directory": str(directory)}) for stage in stages)
    changed = {"name": name, "seed": seed, "stages": here}
    return Recipe.from_tables(tomllib.loads(as_kept(recipe.model_copy(update=changed))))
