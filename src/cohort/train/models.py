"""What a stage takes of stages before it, which a recipe names as "stage:NAME": the model that it starts from, that
scores for it or that teaches it, a tokenizer, and the data that it learns from.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cohort import settings
from cohort.recipe import Recipe
from cohort.settings import SCORERS, Stage, named_stage
from cohort.settings import Reward as RewardTable
from cohort.train.directory import stage_directory
from cohort.train.stage import kind_of
from cohort.types import UserError

# What a stage that makes data writes into its `final`: what is kept, pairs, and solutions with labels of their steps.
DATA, PAIRS, STEPS = "data.jsonl", "pairs.jsonl", "steps.jsonl"
AS_SHOWN = ("template", "template_args", "system", "special_tokens", "max_prompt_tokens", "too_long")  # to a policy
# What a data set says of its source is settled by who made it. These keys of [task] stay the stage's own.
_OWN = (*AS_SHOWN, "decontaminate")


def with_stage_models(recipe: Recipe, index: int) -> Stage:
    """The stage with directories and files in place of "stage:NAME". Raises UserError where no stage of that name comes
    before it that has what is wanted. Data that are yet to be made are stood in for by rows of the same form.
    """
    stage = recipe.stages[index]
    waiting = waits_for(stage)
    rewards = (_resolved(recipe, index, one, waiting[one.name]) if one.name in waiting else one for one in stage.reward)
    changes: dict[str, Any] = {"reward": tuple(rewards), "task": _task(recipe, index)}
    earlier = ((one, _file_of(recipe, index, one)) for one in _history(stage))
    history = tuple(one if file is None else str(file) for one, file in earlier if file is None or file.is_file())
    changes["preferences"] = {"history": history}
    if begins_with(recipe, index) is not None:  # of the stage before: the run says where that lies
        changes["policy"] = {"model": None}
    return stage.with_(**changes)


def _history(stage: Stage) -> tuple[str, ...]:
    return stage.preferences.history if "preferences" in kind_of(stage).tables else ()


def waits_for(stage: Stage) -> dict[str, str]:
    """By reward, the stage whose model it needs; `stage` is as the recipe has it. Rewards that stand outside the stages
    are none of a stage that reads no [[reward]].
    """
    rewards = stage.reward if "reward" in kind_of(stage).tables else ()
    named = {reward.name: named_stage(reward.args.get("model")) for reward in rewards}
    return {reward: name for reward, name in named.items() if name is not None}


def begins_with(recipe: Recipe, index: int) -> int | None:
    """The number of the stage whose model a stage starts from; None where its own table says where from, or where it is
    the first that has a model. Raises UserError where "stage:NAME" is none that makes one.
    """
    stage, made = recipe.stages[index], _before(recipe, index, _makes_policy)
    table = stage.policy
    if (name := named_stage(table.model)) is not None:
        if stage.kind == "reward_model":  # which may go on training an earlier one
            made |= _before(recipe, index, lambda one: one.kind == "reward_model")
        needs = f"stage '{stage.name}' starts from the model of the stage '{name}'"
        return _found(made, name, needs, "leaves a policy")
    return None if table.model or table.scratch else max(made.values(), default=None)


def starts_from(recipe: Recipe, index: int) -> settings.Policy:
    """The [policy] table that names the model which a stage starts from: its own, or that of a stage before it."""
    before = begins_with(recipe, index)
    return recipe.stages[index].policy if before is None else starts_from(recipe, before)


def data_of(recipe: Recipe, index: int) -> int | None:
    """The number of the stage whose data a stage learns from, which its task.source names; None where it is no stage.
    Raises UserError where no such stage makes data.
    """
    return _maker(recipe, index, recipe.stages[index].task.source)


def _maker(recipe: Recipe, index: int, source: Any) -> int | None:
    if (name := named_stage(source)) is None:
        return None
    made = _before(recipe, index, lambda one: getattr(kind_of(one), "makes_data", False))
    needs = f"stage '{recipe.stages[index].name}' learns from the data of the stage '{name}'"
    return _found(made, name, needs, "makes data (kind reject)")


def data_file(recipe: Recipe, index: int) -> Path | None:
    """The file of the data that a stage learns from, whether it is there or not; None where no stage makes them."""
    return _file_of(recipe, index, recipe.stages[index].task.source)


def data_files(recipe: Recipe, index: int) -> list[Path]:
    """The files of all data that stages before one make for it."""
    stage = recipe.stages[index]
    files = (_file_of(recipe, index, source) for source in (stage.task.source, *_history(stage)))
    return [file for file in files if file is not None]


def _file_of(recipe: Recipe, index: int, source: Any) -> Path | None:
    if (origin := _maker(recipe, index, source)) is None:
        return None
    reads, maker = getattr(kind_of(recipe.stages[index]), "reads", ()), recipe.stages[origin]
    if "labels" in reads and not any(one.labels_steps for one in maker.reward):
        raise UserError(
            f"stage '{recipe.stages[index].name}' learns from labels of steps, and no reward of the stage "
            f"'{maker.name}' scores steps: give one of its rewards a split, and weight = 0 if it only labels"
        )
    if "chosen" in reads and not maker.reject.pairs:
        raise UserError(
            f"stage '{recipe.stages[index].name}' learns from the pairs of the stage '{maker.name}', which writes "
            "none: leave out its reject.pairs = 0"
        )
    name = PAIRS if "chosen" in reads else STEPS if "labels" in reads else DATA
    return stage_directory(recipe, origin).absolute() / "final" / name


def yet_to_come(table: settings.Prompts, held_out: bool, seed: int) -> list[dict[str, Any]]:
    """Rows in the place of data that a stage before will make: a source of prompts, for the checks before a run."""
    row = {"answer": "0", "completion": "0", "chosen": "0", "rejected": "1", "completions": ["0"], "labels": [True]}
    return [{**row, "prompt": f"{number}?"} for number in range(int(table.args["rows"]))]


def _task(recipe: Recipe, index: int) -> settings.Task:
    """The [task] table of a stage with what it learns from; with data of another stage the held-out problems are those
    of the prompts that these data were made of, or of the other source that the stage names.
    """
    stage = recipe.stages[index]
    table, file = stage.task, data_file(recipe, index)
    if file is None:
        return table
    asked, learns = asked_of(recipe, index), getattr(kind_of(stage), "reads", ())
    own: dict[str, Any] = {key: getattr(table, key) for key in _OWN}
    own["held_out"] = table.held_out if stage.kind in SCORERS else asked
    if file.is_file():
        return settings.Task(source=str(file)).with_(**own)
    if not learns:  # prompts alone: those that the data will be made of are of the same form
        return asked
    wanted = max(stage.supervised.examples_per_step, stage.preferences.pairs_per_step)
    rows = 1000 + 10 * wanted  # a share may be held out
    return settings.Task(source="cohort.train.models:yet_to_come", args={"rows": rows}).with_(**own)


def asked_of(recipe: Recipe, index: int) -> settings.Task:
    """The [task] table of the prompts that the data of a stage were made of, shown as this stage shows them; of a stage
    that takes no data of another one its own.
    """
    table, origin = recipe.stages[index].task, data_of(recipe, index)
    if origin is None:
        return table
    own: dict[str, Any] = {key: getattr(table, key) for key in _OWN}
    if table.held_out is not None or table.held_out_split is not None:
        own |= {key: getattr(table, key) for key in ("held_out", "held_out_split")}
    return asked_of(recipe, origin).with_(**own)


def _before(recipe: Recipe, index: int, wanted: Callable[[Stage], bool]) -> dict[str, int]:
    return {stage.name: number for number, stage in enumerate(recipe.stages[:index]) if wanted(stage)}


def _makes_policy(stage: Stage) -> bool:
    return kind_of(stage).makes_policy


def _found(before: dict[str, int], name: str, needs: str, makes: str) -> int:
    """The number of the stage `name`, one of those `before`. Raises `UserError`, with who `needs` it, where it is none
    of them: each `makes` what is needed.
    """
    if name not in before:
        but = f"but no stage of that name that {makes} comes before it; there is {', '.join(before) or 'none'}"
        raise UserError(f"{needs}, {but}")
    return before[name]


def _final(recipe: Recipe, number: int) -> str:
    return str((stage_directory(recipe, number) / "final").absolute())


def _resolved(recipe: Recipe, index: int, reward: RewardTable, name: str) -> RewardTable:
    kind = "process_model" if reward.use == "process_model" else "reward_model"
    before = _before(recipe, index, lambda one: one.kind == kind)
    needs = f"reward '{reward.name}' scores with the model of the stage '{name}'"
    where = _final(recipe, _found(before, name, needs, "trains a reward model"))
    return reward.with_(args={**reward.args, "model": where})


def takes_from(stage: Stage) -> dict[str, str]:
    """By what it is here, the stage whose policy is a teacher, or gives its tokenizer."""
    teachers = stage.distillation.teacher if "distillation" in kind_of(stage).tables else {}
    named = {f"teacher '{name}'": one.model for name, one in teachers.items()}
    scratch = stage.policy.scratch
    named |= {} if scratch is None or scratch.tokenizer is None else {"policy.scratch.tokenizer": scratch.tokenizer}
    return {what: name for what, of in named.items() if (name := named_stage(of)) is not None}


def with_stage_policies(recipe: Recipe, index: int, stage: Stage) -> Stage:
    """`stage`, the one at `index`, with directories in place of "stage:NAME" of teachers and tokenizers. Raises
    UserError where no such stage comes before it.
    """
    made, found = _before(recipe, index, _makes_policy), dict[str, str]()
    for what, name in takes_from(stage).items():
        number = _found(made, name, f"{what} is what the stage '{name}' trains", "leaves a policy")
        found[what] = _final(recipe, number)
    if not found:
        return stage
    if (tokenizer := found.get("policy.scratch.tokenizer")) is not None:
        stage = stage.with_(policy={"scratch": {"tokenizer": tokenizer}})
    known = stage.distillation.teacher.items()
    teachers = {name: one.with_(model=found.get(f"teacher '{name}'", one.model)) for name, one in known}
    return stage.with_(distillation={"teacher": teachers})
