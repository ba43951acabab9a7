"""A resolved recipe for people and machines: as TOML, as differences, as a hash."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from cohort.recipe.resolve import flatten
from cohort.recipe.schema import Recipe
from cohort.settings import Optimizer, PythonRows, Reward, Stage, Table, Task
from cohort.settings.table import LATER
from cohort.settings.training import default_rate
from cohort.settings.words import callable_path, plain

_BARE = re.compile(r"[A-Za-z0-9_-]+")

Difference = tuple[str, Any, Any]
Reads = Callable[[Stage], Collection[str]]  # the tables that a stage of this kind reads


def to_toml(recipe: Recipe, *, origins: bool = False, reads: Reads = lambda _: Stage.model_fields) -> str:
    """The resolved recipe as TOML that loads back to an equal recipe; with `origins`, each value says its own. With
    `reads` only the tables that a stage reads are written.

    Functions are written as module:qualname, and one that cannot be imported under that name gets a comment saying so.
    """
    notes = recipe.origins if origins else {}
    lines = _scalars({"name": recipe.name, "seed": recipe.seed}, notes, "")
    # One stage called after its kind needs no [[stage]], and reads as most people write recipes.
    if len(recipe.stages) == 1 and recipe.stages[0].name == recipe.stages[0].kind:
        lines += _scalars({"kind": recipe.stages[0].kind}, notes, "")
        lines += _tables(recipe.stages[0], "", notes, "", reads)
    else:
        for stage in recipe.stages:
            prefix = f"{stage.name}." if len(recipe.stages) > 1 else ""
            lines += ["", "[[stage]]", *_scalars({"name": stage.name}, {}, "")]
            lines += _scalars({"kind": stage.kind}, notes, prefix)
            lines += _tables(stage, "stage.", notes, prefix, reads)
    return "\n".join(lines) + "\n"


def _scalars(values: Mapping[str, Any], notes: Mapping[str, str], prefix: str) -> list[str]:
    """One line for each value that is set, with its origin behind it."""
    lines = []
    for key, value in values.items():
        if value is not None and not isinstance(value, Table) and not _tables_in(value):
            lines += [f"# {note}" for note in [_import_problem(value)] if note]
            line, note = f"{_toml_key(key)} = {toml_value(value)}", notes.get(prefix + key)
            lines.append(f"{line:<48}  # {note}" if note else line)
    return lines


def _tables(stage: Stage, header: str, notes: Mapping[str, str], prefix: str, reads: Reads) -> list[str]:
    lines: list[str] = []
    wanted = reads(stage)
    for name in type(stage).model_fields:
        value = getattr(stage, name)
        if isinstance(value, Table) and name in wanted:
            lines += _table(value, header + name, notes, f"{prefix}{name}.")
    for reward in stage.reward if "reward" in wanted else ():
        lines += _table(reward, f"{header}reward", notes, f"{prefix}reward.{reward.name}.", "[[{}]]")
    for suite in stage.suite if "suite" in wanted else ():
        lines += _table(suite, f"{header}suite", notes, f"{prefix}suite.{suite.name}.", "[[{}]]")
    return lines


def _table(table: Table, header: str, notes: Mapping[str, str], prefix: str, brackets: str = "[{}]") -> list[str]:
    values = {name: getattr(table, name) for name in type(table).model_fields}
    own = _scalars(values, notes, prefix)
    inner = [
        line
        for name, value in values.items()
        for path, table in (((name, value),) if isinstance(value, Table) else _tables_in(value, f"{name}."))
        for line in _table(table, f"{header}.{path}", notes, f"{prefix}{path}.")
    ]
    return ["", brackets.format(header), *own, *inner]


def _tables_in(value: Any, at: str = "") -> list[tuple[str, Table]]:
    """The tables that a value holds by name, each with its path."""
    items = value.items() if isinstance(value, Mapping) else ()
    return [(f"{at}{name}", table) for name, table in items if isinstance(table, Table)]


def _import_problem(value: Any) -> str | None:
    """Why a value cannot be found again under its name, or None."""
    if isinstance(value, PythonRows):
        return "rows that a program gave: they are not written here"
    if not callable(value):
        return None
    path = callable_path(value)
    module, _, name = path.partition(":")
    if isinstance(value, functools.partial):
        return "a partial function: its arguments are not written here"
    found: Any = sys.modules.get(module)  # the function exists, so its module has been imported
    for part in name.split("."):
        found = getattr(found, part, None)
    return None if found is value else "a Python object that cannot be imported under this name"


def differences(a: Recipe, b: Recipe) -> list[Difference]:
    """What differs between two recipes, as (path, value in a, value in b); None where a recipe has no such value."""
    several = len(a.stages) > 1 or len(b.stages) > 1
    return list(_compare(_flat(a, several), _flat(b, several)))


def between(a: Stage, b: Stage) -> list[Difference]:
    """The same of two stages, whatever they are called."""
    return list(_compare(flatten(a), flatten(b)))


def against_defaults(recipe: Recipe) -> list[Difference]:
    """What differs from the defaults, as (path, default, value)."""
    found: list[Difference] = []
    for stage in recipe.stages:
        prefix = f"{stage.name}." if len(recipe.stages) > 1 else ""
        rewards = tuple(Reward(use=reward.use, name=reward.name) for reward in stage.reward)
        rate = Optimizer(learning_rate=default_rate(stage.policy.lora is not None))
        plain = flatten(Stage(kind=stage.kind, name=stage.name, task=Task(source="?"), reward=rewards, optimizer=rate))
        # What has no default is always worth showing.
        default = {path: value for path, value in plain.items() if path != "task.source" and not path.endswith(".use")}
        found += [(prefix + path, was, value) for path, was, value in _compare(default, flatten(stage))]
    return found


def _flat(recipe: Recipe, several: bool) -> dict[str, Any]:
    flat: dict[str, Any] = {"name": recipe.name, "seed": recipe.seed}
    for stage in recipe.stages:
        prefix = f"{stage.name}." if several else ""
        flat.update({prefix + path: value for path, value in flatten(stage).items()})
    return flat


def _compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Difference]:
    for path in dict.fromkeys((*a, *b)):
        if a.get(path) != b.get(path):
            yield path, a.get(path), b.get(path)


def canonical(recipe: Recipe) -> dict[str, Any]:
    """All that affects the result, as plain data: without the run's name and directory, and what is saved or shown.

    A function is its name, not its code; the record of a run keeps the code.
    """
    return {"seed": recipe.seed, "stages": [_plain(stage) for stage in recipe.stages]}


def _plain(value: Any) -> Any:
    if isinstance(value, Table):
        return {
            name: _plain(getattr(value, name))
            for name, field in type(value).model_fields.items()
            if "no effect" not in field.metadata
            and not (LATER in field.metadata and getattr(value, name) == field.default)
        }
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, PythonRows):
        return str(value)
    return plain(value)


def digest(recipe: Recipe) -> str:
    """SHA-256 of `canonical(recipe)`, as 64 hex digits."""
    text = json.dumps(canonical(recipe), sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


# --- TOML: only what a recipe can hold


def _text(value: str) -> str:
    """A basic string of TOML: one of JSON, where DEL must be escaped too."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_key(key: str) -> str:
    """A key, in quotes where it needs them."""
    return key if _BARE.fullmatch(key) else _text(key)


def toml_value(value: Any) -> str:
    """A value on one line; a function is written as module:qualname."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        return str(value).lower()  # True is true
    if isinstance(value, float):
        written = repr(value)  # the shortest text that reads back as the same number
        return written if re.search(r"[.en]", written) else f"{written}.0"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_toml_key(key)} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if callable(value) or isinstance(value, PythonRows):
        return _text(callable_path(value) if callable(value) else str(value))
    raise TypeError(f"TOML has no {type(value).__name__}")
