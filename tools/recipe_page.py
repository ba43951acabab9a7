"""Write what the documents say of keys: `python tools/recipe_page.py`. A test checks that it is up to date.

That is the tables of keys in docs/recipe.md, and in docs/resume.md which of them may change in a run.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any, get_origin

from cohort.settings import Stage, Table
from cohort.settings.table import effect_of, table_of

DOCS = Path(__file__).parent.parent / "docs"
RECIPE, RESUME = DOCS / "recipe.md", DOCS / "resume.md"
MARKS = re.compile(r"(<!-- keys: .*? -->\n).*(<!-- end of keys -->)", re.DOTALL)
MAY_CHANGE = re.compile(r"(<!-- may change: .*? -->\n).*(<!-- end -->)", re.DOTALL)


def keys() -> str:
    """One table for each table of the recipe: key, default, what it does."""
    parts = []
    for name, field in Stage.model_fields.items():
        table = _table_of(field.annotation)
        if table is not None:
            parts.append(_section("[[reward]]" if name == "reward" else f"[{name}]", table))
    return "\n".join(parts)


def _section(title: str, table: type[Table], above: Set[type[Table] | None] = frozenset()) -> str:
    """A table and those in it, but for tables that an outer one has, too."""
    lines = [f"### `{title}`", "", "| key | default | |", "|---|---|---|"]
    nested = []
    for name, field in table.model_fields.items():
        default = "" if field.is_required() else f"`{json.dumps(field.get_default(call_default_factory=True))}`"
        lines.append(f"| `{name}` | {default.replace('`null`', '')} | {field.description} |")
        inner, by_name = _table_of(field.annotation), get_origin(field.annotation) is dict
        if inner is not None and inner not in above:
            place = f"{title.strip('[]')}.{name}{'.NAME' if by_name else ''}"
            nested.append(_section(f"[{place}]", inner, {*above, inner, *map(_table_of, _annotations(table))}))
    return "\n".join([*lines, "", *nested])


def _annotations(table: type[Table]) -> list[Any]:
    return [field.annotation for field in table.model_fields.values()]


def _table_of(annotation: Any) -> type[Table] | None:
    for part in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(part, type) and issubclass(part, Table):
            return part
    return None


def recipe_page(text: str) -> str:
    """The recipe page with its keys written anew."""
    return MARKS.sub(lambda m: f"{m[1]}\n{keys()}\n{m[2]}", text)


def marked(effect: str, table: type[Table] = Stage, at: tuple[str, ...] = ()) -> Iterator[str]:
    """The keys of a stage that are marked so, as a recipe would name them."""
    for name, field in table.model_fields.items():
        inner, _ = table_of(field)
        if inner is not None:
            yield from marked(effect, inner, (*at, name))
        elif effect_of(Stage, (*at, name)) == effect:
            yield f"`{'.'.join((*at, name))}`"


def resume_page(text: str) -> str:
    """The page on resuming with its lists of keys written anew."""
    free, others = (", ".join(marked(effect)) for effect in ("no effect", "resumable"))
    sentences = (
        f"Keys that change no number of the result may differ: {free}. So may these, which leave what was "
        f"done so far as it is: {others}."
    )
    return MAY_CHANGE.sub(lambda m: f"{m[1]}{textwrap.fill(sentences, 120)}\n{m[2]}", text)


if __name__ == "__main__":
    RECIPE.write_text(recipe_page(RECIPE.read_text("utf-8")), "utf-8")
    RESUME.write_text(resume_page(RESUME.read_text("utf-8")), "utf-8")
