"""`cohort config`: a recipe as it is resolved, where its values come from, and where it differs."""

from __future__ import annotations

import tomllib
from typing import Any

import orjson

from cohort.commands.explain import Difference, objective_differences
from cohort.recipe import Recipe, against_defaults, differences
from cohort.settings import GROUPS, Stage
from cohort.settings.words import plain, shown
from cohort.train.directory import as_kept
from cohort.train.unread import refuse_unread
from cohort.views.console import Console


def resolved(recipe: Recipe) -> dict[str, Any]:
    """The recipe as its tables and as TOML, and the origin of every value."""
    refuse_unread(recipe)
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


def compared(recipe: Recipe, other: Recipe | None, name: str | None) -> dict[str, Any]:
    """Every value that differs, from those of another recipe called `name`, of the preset of that name, or from the
    defaults; of an objective with the consequence. What only one of two recipes has is one row.
    """
    rows = []
    if other is None and name is None:
        rows = [(path, here, there, "") for path, there, here in against_defaults(recipe)]
    elif other is not None:
        rows = _alone([(path, here, there, "") for path, there, here in differences(other, recipe)])
    pairs = [(stage, _of_other(other, stage)) for stage in recipe.stages if stage.kind in GROUPS]
    several = len(recipe.stages) > 1 or (other is not None and len(other.stages) > 1)
    objectives = [
        (f"{stage.name}." * several + field, *rest)
        for stage, their in pairs
        for field, *rest in objective_differences(stage, their if other is not None else name)
    ]
    if name is not None:  # an objective is what its preset and its fields come to
        rows = [row for row in rows if ".objective." not in f".{row[0]}" or row[0].endswith(".preset")] + objectives
    keys = ("key", "here", "there", "consequence")
    found = [dict(zip(keys, (path, plain(here), plain(there), why))) for path, here, there, why in rows]
    return {"against": name or "the defaults", "differences": found}


def show_difference(console: Console, found: dict[str, Any]) -> None:
    """A line for each value, the keys aligned."""
    where = "by default" if found["against"] == "the defaults" else f"in {found['against']}"
    lines = {}
    for row in found["differences"]:
        why = f": {row['consequence']}" if row["consequence"] else ""
        lines[row["key"]] = f"{shown(row['here'])} here, {shown(row['there'])} {where}{why}"
    console.lines(lines, indent=0, whole=True, ends=True)
    if not lines:
        console.say("no differences")


def _alone(rows: list[Difference]) -> list[Difference]:
    """The rows, with one for a reward, or another table by name, that only one of the recipes has."""
    lone = {path.removesuffix("use"): (here, there) for path, here, there, _ in rows if path.endswith(".use")}
    lone = {prefix: both for prefix, both in lone.items() if None in both}
    kept = [row for row in rows if not row[0].startswith(tuple(lone))]
    return kept + [(prefix[:-1], here or "none", there or "none", "") for prefix, (here, there) in lone.items()]


def _of_other(other: Recipe | None, stage: Stage) -> Stage | None:
    """The stage of another recipe to compare with: that of the same name, or its only one of this kind."""
    same = [] if other is None else [one for one in other.stages if one.kind == stage.kind]
    return next((one for one in same if one.name == stage.name or len(same) == 1), None)


def show_schema(console: Console, found: dict[str, Any]) -> None:
    """The schema on many lines."""
    console.plain(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() + "\n")
