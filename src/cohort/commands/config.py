"""`cohort config`: a recipe as it is resolved, where its values come from, and where it differs."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import orjson

from cohort.recipe import Recipe, against_defaults, differences
from cohort.settings.words import callable_path
from cohort.train.directory import as_kept
from cohort.train.stage import refuse_unread_tables
from cohort.views.console import Console


def resolved(recipe: Recipe) -> dict[str, Any]:
    """The recipe as its tables and as TOML, and the origin of every value."""
    refuse_unread_tables(recipe)
    text = as_kept(recipe)
    return {"recipe": tomllib.loads(text), "toml": text, "origins": recipe.origins}


def show_recipe(console: Console, found: dict[str, Any]) -> None:
    """The TOML alone, so that it can be written into a file."""
    console.plain(found["toml"])


def show_origins(console: Console, found: dict[str, Any]) -> None:
    """A line for each value."""
    width = max(map(len, found["origins"]))
    for path, origin in found["origins"].items():
        console.plain(f"{path:<{width}}  {origin}\n")


def compared(recipe: Recipe, other: Recipe | None, name: Path | None) -> dict[str, Any]:
    """Every value that differs, from those of another recipe called `name`, or from the defaults."""
    found = differences(other, recipe) if other is not None else against_defaults(recipe)
    rows = [{"key": path, "here": _plain(here), "there": _plain(there)} for path, there, here in found]
    return {"against": "the defaults" if name is None else str(name), "differences": rows}


def show_difference(console: Console, found: dict[str, Any]) -> None:
    """A line for each value."""
    where = "by default" if found["against"] == "the defaults" else f"in {found['against']}"
    for row in found["differences"]:
        console.plain(f"{row['key']}: {row['here']!r} here, {row['there']!r} {where}\n")
    if not found["differences"]:
        console.say("no differences")


def show_schema(console: Console, found: dict[str, Any]) -> None:
    """The schema on many lines."""
    console.plain(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() + "\n")


def _plain(value: Any) -> Any:
    return callable_path(value) if callable(value) else value
