"""`cohort.train` in Python: a recipe, or the model, the data and the reward from which one is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

from cohort.policy.load import Start, live_dtype
from cohort.recipe import Recipe
from cohort.recipe.loader import name_of_model
from cohort.settings import PythonRows, Reward, Table
from cohort.tasks.guess import Guess, guess, guess_source
from cohort.tasks.sources.rows import open_rows
from cohort.train.directory import is_free
from cohort.train.rows import with_rows_kept
from cohort.train.run import Run
from cohort.train.run import train as train_recipe
from cohort.types import UserError
from cohort.views.console import Console, escape
from cohort.wording import shorten

RewardLike = str | Callable[..., Any] | Reward | Mapping[str, Any]
MOST_NAMES = 1000
_FIRST = {"policy": "dtype", "task": "prompt"}  # a key of each table, for a message


def train(
    recipe: Recipe | None = None,
    *,
    model: Any = None,
    data: str | os.PathLike[str] | Iterable[Mapping[str, Any]] | None = None,
    reward: RewardLike | Sequence[RewardLike] | None = None,
    tokenizer: Any = None,
    resume: bool = False,
    fork: str | None = None,
    console: Console | None = None,
    **tables: Any,
) -> Run:
    """Run all stages of a recipe, or of the recipe that the other arguments make.

        run = cohort.train(cohort.Recipe.load("mine.toml"))

        def right(completion, answer):
            return float(completion.strip().endswith(str(answer)))

        run = cohort.train(model="Qwen/Qwen3-0.6B", data="train.jsonl", reward=right, run={"steps": 20})

    model      a hub id or a directory; or a model object of transformers, with its `tokenizer` (policy.model = "live")
    data       what task.source may be; or rows: a list of dicts, another iterable of them, a `datasets.Dataset`. Rows
               are written into the run's directory as data.jsonl, which the recipe names, so that the run resumes
    reward     a function, a built-in name, "module:function", a table, or a list of these; without one, the verifier
               that fits the answers
    tables     the other keys of a recipe: `run={"steps": 20}`, `objective={...}`, `task={"prompt": "question"}`,
               `name=...`, `seed=...`, `kind=...`; their defaults are those of a recipe file

    Columns that the task table does not name are taken as `cohort init` takes them, and said. The run's name is the
    last part of the model's, with -2, -3 where there is such a run.

    With `resume` a run that was interrupted goes on, exactly: of those with the model's name the newest, if no name is
    given. One that is finished is only shown; one that was never begun is begun.

    With `fork`, `RUN@STEP`, a new run begins from that checkpoint of another one.

    Raises `UserError` for everything that a person can mend, most of it before any model loads.
    """
    if resume and fork is not None:
        raise UserError("fork begins a run and resume goes on with one: give one of them")
    live = model if model is not None and not isinstance(model, str | os.PathLike) else None
    if recipe is None:
        console = console or Console()
        recipe = _recipe(model, data, reward, tables, resume, console)
    else:
        _refuse_beside(recipe, model if live is None else None, data, reward, tables)
        if live is not None and not any(stage.policy.model == "live" for stage in recipe.stages):
            named = recipe.stages[0].policy.model
            raise UserError(
                f'the recipe names its model itself, policy.model = "{named}", so the model object would not be '
                'used: write policy.model = "live", or leave model out'
            )
    if live is None and tokenizer is not None:
        raise UserError("tokenizer is for a model object: give both, or leave it out, as a checkpoint has its own")
    if live is not None and not hasattr(live, "config"):
        raise UserError(f"model is a hub id, a directory, or a model object of transformers, not {shorten(live)}")
    if live is not None and tokenizer is None:
        raise UserError("a model object needs its tokenizer: cohort.train(..., model=model, tokenizer=tokenizer)")
    if live is not None:
        recipe = _with_type_of(live, recipe)
    start = Start(live=None if live is None else (live, tokenizer))
    return train_recipe(with_rows_kept(recipe, resume), resume=resume, fork=fork, console=console, start=start)


def _with_type_of(model: Any, recipe: Recipe) -> Recipe:
    """The recipe, which is the record, with the type that the weights of a model object have, where it names none."""
    stages = [
        stage.with_(policy={"dtype": live_dtype(model)})
        if stage.policy.model == "live" and "dtype" not in stage.policy.model_fields_set
        else stage
        for stage in recipe.stages
    ]
    return recipe.model_copy(update={"stages": tuple(stages)})


def _refuse_beside(recipe: Any, model: Any, data: Any, reward: Any, tables: Mapping[str, Any]) -> None:
    """A recipe says everything itself; beside it there is only a model object for policy.model = "live"."""
    if not isinstance(recipe, Recipe):
        raise UserError(
            f"cohort.train takes a Recipe, not {type(recipe).__name__}: cohort.Recipe.load(FILE) reads one, and "
            "cohort.train(model=..., data=..., reward=...) makes one"
        )
    given = {"model": model, "data": data, "reward": reward, **tables}
    named = [name for name, value in given.items() if value is not None]
    if named:
        raise UserError(f"the recipe says its {named[0]} itself: change it there, or leave the recipe out")


def _recipe(model: Any, data: Any, reward: Any, given: Mapping[str, Any], resume: bool, console: Console) -> Recipe:
    """The recipe that the arguments of `train` make."""
    tables = dict(given)
    for name in ("policy", "task"):
        if not isinstance(tables.get(name, {}), Mapping | Table):
            raise UserError(f"{name} is a table, such as {{'{_FIRST[name]}': ...}}, not {shorten(tables[name])}")
    for name, value, table, key in (("model", model, "policy", "model"), ("data", data, "task", "source")):
        if value is not None and key in _keys(tables.get(table)):
            raise UserError(f"{name} and {table}.{key} say the same: give one of them")
    policy, task = _keys(tables.get("policy")), _keys(tables.get("task"))
    if model is not None:
        policy["model"] = str(model) if isinstance(model, str | os.PathLike) else "live"
        tables["policy"] = policy
    if reward is not None:
        tables["reward"] = reward
    if data is not None:
        kind = str(tables.get("kind") or "")
        if isinstance(data, str | os.PathLike):
            task["source"] = os.fspath(data)
            found = guess_source(task["source"], task.get("split", "train"), task.get("config"), task, kind)
        else:
            task["source"] = PythonRows(data)
            found = guess(open_rows(task["source"], task.get("split", "train")), task, kind)
        tables = _with_guess(tables, task, found, console)
    base = _model_name(model, policy)
    recipe = Recipe(**{"name": base, **tables})  # what is wrong with the tables is said before anything is written
    parent = Path(recipe.stages[-1].run.directory).expanduser()
    name = recipe.name if "name" in tables else _name(parent, base, resume)
    return recipe if name == recipe.name else Recipe(**{**tables, "name": name})


def _with_guess(tables: Mapping[str, Any], task: Mapping[str, Any], found: Guess, console: Console) -> dict[str, Any]:
    """The tables with what the columns seem to be, which is said."""
    merged = {**tables, "task": {**task, **found.task}}
    took, warnings = list(found.took), list(found.unsure)
    if "stage" not in tables:
        merged.setdefault("kind", found.kind)
        if merged["kind"] == "grpo" and "reward" not in merged and found.reward is not None:
            merged["reward"] = found.reward
            (took if found.fits else warnings).append(f"the reward {found.because}")
    if took:
        console.say(f"[dim]data[/]  {escape('; '.join(took))}")
    for text in warnings:
        console.warn(text)
    return merged


def _keys(table: Any) -> dict[str, Any]:
    """What is written in a table; a value that is none is left for the recipe to refuse."""
    if isinstance(table, Table):
        return {name: getattr(table, name) for name in table.model_fields_set}
    return dict(table) if isinstance(table, Mapping) else {}


def _model_name(model: Any, policy: Mapping[str, Any]) -> str:
    """The last part of the model's name, as a directory can be called."""
    if model is not None and not isinstance(model, str | os.PathLike):
        known = getattr(model, "name_or_path", "") or type(model).__name__
    else:
        known = str(policy.get("model") or "run")
    return name_of_model(known)


def _name(parent: Path, base: str, resume: bool) -> str:
    """The first of NAME, NAME-2, NAME-3 ... that is free; to resume, the last one that is there."""
    names = (base if number == 1 else f"{base}-{number}" for number in count(1))
    if resume:
        there = [name for name in islice(names, MOST_NAMES) if (parent / name).exists()]
        return there[-1] if there else base
    return next(name for name in names if is_free(parent / name))
