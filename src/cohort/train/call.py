"""`cohort.train` in Python: a recipe, or the model, the data and the reward from which one is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import orjson
from rich.markup import escape

from cohort.recipe import Recipe
from cohort.recipe.loader import directory_name
from cohort.record.files import write_bytes
from cohort.settings import Reward, Run, Table
from cohort.tasks import open_rows
from cohort.tasks.guess import Guess, guess, guess_source
from cohort.train.directory import is_free
from cohort.train.run import Run as FinishedRun
from cohort.train.run import train as train_recipe
from cohort.types import UserError
from cohort.views.console import Console

__all__ = ["train"]

RewardLike = str | Callable[..., Any] | Reward | Mapping[str, Any]
ROWS = "data.jsonl"  # of a run: the rows that were given as Python objects


def train(
    recipe: Recipe | None = None,
    *,
    model: Any = None,
    data: str | os.PathLike[str] | Iterable[Mapping[str, Any]] | None = None,
    reward: RewardLike | Sequence[RewardLike] | None = None,
    tokenizer: Any = None,
    resume: bool = False,
    console: Console | None = None,
    **tables: Any,
) -> FinishedRun:
    """Run all stages of a recipe, or of the recipe that the other arguments make.

        run = cohort.train(cohort.Recipe.load("mine.toml"))

        def right(completion, answer):
            return float(answer in completion)

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

    Raises `UserError` for everything that a person can mend, most of it before any model loads.
    """
    live = model if model is not None and not isinstance(model, str | os.PathLike) else None
    if recipe is None:
        console = console or Console()
        recipe = _recipe(model, data, reward, tables, resume, console)
    else:
        _refuse_beside(recipe, model if live is None else None, data, reward, tables)
    if live is not None and tokenizer is None:
        raise UserError("a model object needs its tokenizer: cohort.train(..., model=model, tokenizer=tokenizer)")
    return train_recipe(recipe, resume=resume, console=console, model=live, tokenizer=tokenizer)


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


def _recipe(
    model: Any, data: Any, reward: Any, tables: Mapping[str, Any], resume: bool, console: Console
) -> Recipe:
    """The recipe that the arguments of `train` make. Rows are written into the directory that the run will have."""
    tables = dict(tables)
    for key, value, table, name in (("model", model, "policy", "model"), ("data", data, "task", "source")):
        if value is not None and name in _given(tables.get(table)):
            raise UserError(f"{key} and {table}.{name} say the same: give one of them")
    if model is not None:
        said = str(model) if isinstance(model, str | os.PathLike) else "live"
        tables["policy"] = {**_given(tables.get("policy")), "model": said}
    if "name" not in tables:
        parent = Path(_given(tables.get("run")).get("directory", Run().directory))
        tables["name"] = _name(parent, _model_name(model, tables), resume)
    if reward is not None:
        tables["reward"] = reward
    if data is None:
        return Recipe(**tables)
    task = _given(tables.get("task"))
    if isinstance(data, str | os.PathLike):
        source = os.fspath(data)
        found = None if task.get("mixture") else _look(source, task)
    else:
        parent = Path(_given(tables.get("run")).get("directory", Run().directory))
        file = parent / str(tables["name"]) / ROWS
        _write_rows(file, data, resume)
        source = str(file)
        found = guess(open_rows(source), task)
    tables["task"] = {**task, "source": source}
    if found is not None:
        _take(tables, found, console)
    return Recipe(**tables)
