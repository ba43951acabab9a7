"""`cohort init`: a commented starter recipe, from the columns that the data have."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cohort.commands.door import argument
from cohort.machine import quiet_libraries
from cohort.policy.gguf import SUFFIX, read_header
from cohort.policy.load import locate
from cohort.recipe import Recipe
from cohort.recipe.loader import name_of_model
from cohort.recipe.show import toml_value
from cohort.rewards.built_in import BUILT_IN
from cohort.settings import Stage, Task
from cohort.settings.table import table_of
from cohort.settings.training import default_rate
from cohort.tasks.guess import Guess, guess_source, held_out_of
from cohort.train.run import prepare
from cohort.types import UserError
from cohort.views.console import Console, show_recipe

CONTEXT = 1024  # positions of a model from which completions of the usual length fit beside a prompt


@dataclass(frozen=True, slots=True)
class Starter:
    """The recipe as TOML, what was taken for what, and what a person still has to decide."""

    recipe: str
    took: tuple[str, ...]
    unsure: tuple[str, ...]


def starter(model: str, data: str, split: str, config: str | None) -> Starter:
    """A recipe that trains `model` on `data`. Raises `UnreadableError` for data that cannot be read."""
    quiet_libraries()
    with argument():
        locate(model)
        found = held_out_of(data, split, config, guess_source(data, split, config))
    given = {"split": split, "config": config}
    task = {key: value for key, value in given.items() if value not in (None, Task.model_fields[key].default)}
    found = replace(found, task={**found.task, **task})
    took, unsure = list(found.took), list(found.unsure)
    problem = _problem(_recipe(model, data, found))
    plain = replace(
        found, reward={"use": "exact_text"}, because=f"exact_text, as another does not do: {problem}", fits=False
    )
    if problem is not None and found.kind == "grpo" and _problem(_recipe(model, data, plain)) is None:
        found, problem = plain, None
    if found.because:
        (took if found.fits else unsure).append(f"the reward {found.because}")
    if problem is not None:
        unsure.append(problem)
    return Starter(_recipe(model, data, found), tuple(took), tuple(unsure))


def show(console: Console, found: Starter) -> None:
    """The recipe on standard output; on standard error what was taken, and what could not be decided."""
    show_recipe(console, found.recipe, {"took": found.took, "[yellow]open[/]": found.unsure})


def _recipe(model: str, data: str, found: Guess) -> str:
    """The text of the recipe: what is worth looking at first, each key with what it does."""
    kind, few = found.kind, found.size
    tables: dict[str, dict[str, Any]] = {"policy": {"model": model}, "task": {"source": data, **found.task}}
    if kind == "grpo":
        tables["rollout"] = _first_keys("rollout", "group_size", prompts_per_step=_at_most(16, few))
        tables["rollout"]["max_tokens"] = _room(model)
        tables["objective"] = _first_keys("objective", "preset")
    elif kind == "sft":
        tables["supervised"] = {"examples_per_step": _at_most(64, few)}
    else:
        tables["preferences"] = {"pairs_per_step": _at_most(64, few)}
    rate = default_rate(lora=Path(model, "adapter_config.json").is_file())
    tables["optimizer"] = {"learning_rate": rate if kind == "grpo" else 1e-5, "warmup_steps": 10}
    tables["run"] = {"steps": 200, "evaluate_every": 50, "save_every": 50}
    own = {
        "policy": {"model": "Hub id, directory of a checkpoint, or GGUF file."},
        "task": {"source": "Problems without end." if few is None else f"{few:,} rows."},
    }
    lines = [
        "# By `cohort init`. Next, with this file's name: cohort check, cohort explain, cohort train.",
        f"name = {toml_value(name_of_model(model))}",
        *([f"kind = {toml_value(kind)}"] if kind != "grpo" else []),
        "seed = 0",
    ]
    for name, values in tables.items():
        table, _ = table_of(Stage.model_fields[name])
        about = {key: field.description or "" for key, field in table.model_fields.items()} if table else {}
        lines += ["", f"[{name}]", *_lines(values, about | own.get(name, {}))]
        if name == "rollout" and found.reward is not None:
            says = BUILT_IN[found.reward["use"]].line
            lines += ["", "[[reward]]", f"# {says}; or your own: module:function", *_lines(found.reward, {})]
    return "\n".join(lines) + "\n"


def _lines(values: Mapping[str, Any], about: Mapping[str, str]) -> list[str]:
    """`key = value  # what it does`."""
    written = {key: f"{key} = {toml_value(value)}" for key, value in values.items()}
    return [f"{text:<34}  # {about[key]}" if key in about else text for key, text in written.items()]


def _first_keys(name: str, *keys: str, **values: Any) -> dict[str, Any]:
    """Keys of a table with their defaults, beside those whose values are given."""
    table, _ = table_of(Stage.model_fields[name])
    assert table is not None
    return {**values, **{key: table.model_fields[key].default for key in keys}}


def _at_most(usual: int, rows: int | None) -> int:
    """No more than there are; a tenth of the rows may be held out."""
    return usual if rows is None else max(min(usual, int(0.8 * rows)), 1)


def _room(model: str) -> int:
    """The longest completion: the default, or half of the context of a smaller model that is here."""
    usual: int = _first_keys("rollout", "max_tokens")["max_tokens"]
    try:
        if model.endswith(SUFFIX):
            context: object = read_header(locate(model)).context
        else:
            config = json.loads(Path(model, "config.json").expanduser().read_text("utf-8"))
            context = config.get("max_position_embeddings")
    except (OSError, ValueError):
        return usual
    return context // 2 if isinstance(context, int) and context < CONTEXT else usual


def _problem(text: str) -> str | None:
    """What `cohort check` would have against the recipe before it loads a model."""
    try:
        prepare(Recipe.from_tables(tomllib.loads(text)))
    except UserError as error:
        return f"{str(error).rstrip('.')}."
    return None
