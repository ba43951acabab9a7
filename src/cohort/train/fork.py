"""Forks: a run that begins from a checkpoint of another one, with its weights, its optimizer and its place in the data.

    cohort train mine.toml --from runs/mine@50 name=lower optimizer.learning_rate=1e-6

It goes on with step 51, as its parent would have, but for what its recipe says otherwise. Its first checkpoint is a
copy of the one that it begins from, so that it is resumed without its parent. Its parent stands in environment.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cohort.policy.load import Start
from cohort.preflight.objective import settled_objective
from cohort.recipe import Recipe
from cohort.record.inputs import fingerprints
from cohort.record.manifest import NAME as MANIFEST
from cohort.record.manifest import sha256_of
from cohort.seeds import derive_seed
from cohort.settings import GROUPS, Stage, named_stage
from cohort.train.checkpoint import Checkpoint, checkpoint_of, checkpoints_in, read_checkpoint
from cohort.train.directory import (
    ENVIRONMENT,
    as_kept,
    different,
    flat_recipe,
    in_words,
    read_environment,
    recipe_in,
    stage_directory,
)
from cohort.train.inputs import inputs_of_stages
from cohort.train.models import DATA, begins_with, takes_from, waits_for
from cohort.train.stage import Context
from cohort.types import UnreadableError, UserError
from cohort.views.console import Console, escape

WEIGHTS = ("model", "revision", "scratch", "lora", "dtype")  # keys of [policy] that a checkpoint has settled


@dataclass(frozen=True, slots=True)
class Fork:
    """Where a run begins: stage `index` of its recipe, at a checkpoint of another run. `facts` go to environment.json,
    `start` is the directory of what the parent's stage began with, None where its recipe names that.
    """

    index: int
    checkpoint: Checkpoint
    start: str | None
    facts: Mapping[str, Any]

    def taken_up(self, context: Context) -> Context:
        """The context of the stage, so that it begins from the checkpoint."""
        start = Start(self.start, context.start.live)
        return replace(context, start=start, parent=self.checkpoint, first=self.checkpoint.step)


def open_fork(source: str, recipe: Recipe, console: Console) -> Fork:
    """The fork that `RUN@STEP` names, of the last stage of that run, or of stage NAME with `RUN/stages/NAME@STEP`. What
    differs from the parent's recipe is said. Raises `UserError` for what cannot go on from there.
    """
    run, stage_name, step = _named(source)
    parent = recipe_in(run)
    names = [stage.name for stage in parent.stages]
    if stage_name is not None and stage_name not in names:
        raise UnreadableError(f"{run} has no stage {stage_name!r}; it has {', '.join(names)}")
    at = len(names) - 1 if stage_name is None else names.index(stage_name)
    index = _same_stage(parent.stages[at], recipe)
    checkpoint = checkpoint_of(stage_directory(parent, at) / "checkpoints", step)
    _refuse_unfit(parent.stages[at], recipe.stages[index], checkpoint)
    before = begins_with(parent, at)
    start = None if before is None else str((stage_directory(parent, before) / "final").absolute())
    keeps = _say_differences(run, parent, recipe, console)
    keeps["ledger"] &= derive_seed(parent.seed, "stage", at) == derive_seed(recipe.seed, "stage", index)
    keeps["pending"] &= keeps["ledger"]
    if not keeps["ledger"]:
        console.warn("its prompts are others than its parent's, so it begins them anew")
    facts = {
        "run": str(run),
        "stage": parent.stages[at].name,
        "step": step,
        "checkpoint": str(checkpoint.path),
        "manifest_sha256": sha256_of(checkpoint.path / MANIFEST),
        "start": start,
        "index": index,
        **keeps,
    }
    return _fork(facts, checkpoint)


def kept_fork(directory: Path) -> Fork | None:
    """The fork that a run is, as it wrote it down; None where it is none. Until the run has a checkpoint of its own,
    its parent's is needed: raises `UserError` where that is gone, or is not what it was.
    """
    facts = read_environment(directory / ENVIRONMENT).get("parent")
    if facts is None or "checkpoint" not in facts:
        return None
    path = Path(facts["checkpoint"])
    if any(checkpoints_in(place / "checkpoints") for place in (directory, *directory.glob("stages/*"))):
        return _fork(facts, Checkpoint(path, facts["step"], {}))
    if not (path / MANIFEST).is_file():
        raise UserError(f"the checkpoint that this run begins from is gone: {path}. Restore it, or begin another run")
    if sha256_of(path / MANIFEST) != facts["manifest_sha256"]:
        raise UserError(f"the checkpoint that this run begins from is another than it was: {path}. Begin another run")
    return _fork(facts, read_checkpoint(path))


def _fork(facts: Mapping[str, Any], checkpoint: Checkpoint) -> Fork:
    state = {**checkpoint.state, "pending": facts["pending"]}
    if not facts["ledger"]:
        state.pop("ledger", None)
    return Fork(facts["index"], replace(checkpoint, state=state), facts["start"], facts)


def _named(source: str) -> tuple[Path, str | None, int]:
    """`RUN@STEP` as the run's directory, the stage that is named, and the step."""
    found = re.fullmatch(r"(.+)@(\d+)", source)
    if found is None:
        raise UnreadableError(f"--from takes RUN@STEP, a run and a step that it has a checkpoint of, not {source!r}")
    run, stage = Path(found[1]).expanduser().absolute(), None
    if run.parent.name == "stages" and not (run / "recipe.toml").is_file():
        run, stage = run.parent.parent, run.name
    return run, stage, int(found[2])


def _same_stage(parent: Stage, recipe: Recipe) -> int:
    """The stage of the recipe that goes on from the parent's: of its name, or the only one of its kind."""
    named = [at for at, one in enumerate(recipe.stages) if (one.name, one.kind) == (parent.name, parent.kind)]
    alike = named or [at for at, one in enumerate(recipe.stages) if one.kind == parent.kind]
    if len(alike) != 1:
        raise UserError(
            f"the checkpoint is of a stage '{parent.name}' of kind '{parent.kind}', and the recipe has "
            f"{len(alike) or 'no'} stage{'s' * (len(alike) > 1)} of that kind: name one '{parent.name}'"
        )
    return alike[0]


def _refuse_unfit(parent: Stage, stage: Stage, checkpoint: Checkpoint) -> None:
    for key in WEIGHTS:
        was, now = getattr(parent.policy, key), getattr(stage.policy, key)
        if was != now:
            raise UserError(
                f"{in_words(f'policy.{key}', was, now)}, and the checkpoint has settled that. Leave it as it was; or "
                f'begin anew with the weights alone: policy.model = "{checkpoint.path}"'
            )
    if stage.run.steps <= checkpoint.step:
        raise UserError(f"run.steps = {stage.run.steps} are done at step {checkpoint.step}: set run.steps higher")
    if (maker := named_stage(stage.task.source)) is not None:
        raise UserError(
            f"the data of the stage come from stage '{maker}', which is not run again: name its file, "
            f"task.source = .../{maker}/final/{DATA}"
        )
    takes = {f"the model of reward '{reward}'": name for reward, name in waits_for(stage).items()} | takes_from(stage)
    for what, name in takes.items():
        raise UserError(f"{what} comes from stage '{name}', which is not trained again: name its directory")
    by_critic = stage.kind in GROUPS and settled_objective(stage).baseline == "critic"
    if by_critic and not (checkpoint.path / "critic").is_dir():
        raise UserError("objective.baseline = 'critic' needs a critic, and the checkpoint has none: use another one")


def _say_differences(run: Path, parent: Recipe, recipe: Recipe, console: Console) -> dict[str, bool]:
    """Print what differs. Returns whether the place in the prompts can be kept, and groups that were sampled ahead."""
    before = flat_recipe((run / "recipe.toml").read_text("utf-8"))
    changed = [one for one in different(before, flat_recipe(as_kept(recipe))) if one[0] != "name"]
    for one in changed:
        console.say(f"  [dim]other than its parent[/]  {escape(in_words(*one))}")
    tables = {part for key, _, _ in changed for part in key.split(".")[:3]}
    known = read_environment(run / ENVIRONMENT).get("inputs", {})
    now = fingerprints(inputs_of_stages(recipe))
    same = "task" not in tables and all(now[path] == known[path] for path in now.keys() & known.keys())
    return {"ledger": same, "pending": same and not tables & {"rollout", "environment", "policy", "seed"}}
