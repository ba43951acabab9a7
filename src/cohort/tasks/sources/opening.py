"""From the table of one source to the function behind it, and to its training and its held-out prompts, checked."""

from __future__ import annotations

import os
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from cohort import settings
from cohort.tasks.prompts import (
    CHECKED,
    Distinct,
    Items,
    Prompts,
    RowItems,
    Rows,
    check_text,
    limited,
    listed,
    split_by_hash,
)
from cohort.tasks.sources.base import SOURCES, Found, FromPython, SourceOfPrompts, built_in_name, has_no
from cohort.tasks.sources.columns import ColumnMap, of_text, with_inner
from cohort.tasks.sources.rows import ending, open_rows
from cohort.types import Prompt, UserError
from cohort.wording import find_function, nearest, one_line

NAMES_OF_COLUMNS = ("prompt", "answer", "messages", "completion", "chosen", "rejected", "margin")  # keys of a table
DOMAIN = "domain"  # the column that says which source of a mixture a prompt is from

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OpenSource:
    """One source of prompts, opened. `name` is "" outside a mixture; `question` names a column.

    `weights`: (from this step on, weight), steps ascending.
    """

    name: str
    table: settings.Prompts
    train: Prompts
    held_out: Prompts | None
    columns: tuple[str, ...]
    question: str
    weights: tuple[tuple[int, float], ...] = ((0, 1.0),)
    environment: str | None = None  # the one that must play its prompts, see `Found`

    @property
    def levels(self) -> tuple[Any, ...]:
        """The levels that a curriculum chooses from; (None,) without one, for then the source itself orders them."""
        return (None,) if self.table.curriculum is None else cast(Any, self.train).levels

    def prompt(self, level: int | None, index: int) -> Prompt:
        """The training prompt number `index` (of a level, where a curriculum chose one). A source with an end begins
        anew.
        """
        if level is not None:
            return self.tagged(cast(Any, self.train).at(level, index))
        return self.tagged(self.train[index if self.train.size is None else index % self.train.size])

    def tagged(self, prompt: Prompt) -> Prompt:
        """The prompt with the name of its source among its tags."""
        return replace(prompt, tags={**prompt.tags, DOMAIN: self.name}) if self.name else prompt


def open_source(table: settings.Prompts, seed: int, held_out_seed: int, name: str = "") -> OpenSource:
    """Open both sides of a source. `held_out_seed` is the seed of held-out problems that are made."""
    found = _open_found(table, False, seed)

    def open_held_out(other: settings.Prompts) -> Prompts:
        return _open_found(other, True, held_out_seed).prompts

    train, held_out = with_held_out(table, found.prompts, "prompt", lambda prompt: prompt, open_held_out)
    if found.distinct and table.limit is not None:
        train = Distinct(train, table.limit, str(table.source))
    else:
        train = limited(train, table.limit)
    return OpenSource(name, table, train, held_out, found.columns, found.question, environment=found.environment)


def with_held_out(
    table: settings.Prompts,
    train: Items[T],
    thing: str,
    prompt_of: Callable[[T], Prompt],
    open_held_out: Callable[[settings.Prompts], Items[T]],
) -> tuple[Items[T], Items[T] | None]:
    """What is trained on, and what a table says is held out: a share, another source, another split, or nothing.

    A source without an end makes its own held-out problems where the table says nothing.
    """
    share, itself = _is_share(table.held_out), isinstance(table.held_out, str) and table.held_out == table.source
    named = table.held_out is not None
    if train.size is None and (share or (table.held_out_split is not None and not named)):
        key = f"held_out = {table.held_out}" if share else f"held_out_split = {table.held_out_split!r}"
        raise UserError(f"{table.source} holds out its own problems; remove {key}.")
    if share:
        return split_by_hash(train, float(cast(float, table.held_out)), thing, prompt_of)
    if named and not itself:  # the columns of this source hold for the other one, but not what is this one's own
        own = ("config", "revision", "levels", "args", "limit", "curriculum", "adaptive")
        fields = type(table).model_fields
        plain = {key: fields[key].get_default(call_default_factory=True) for key in own if key in fields}
        return train, open_held_out(table.model_copy(update={**plain, "source": table.held_out, "held_out": None}))
    if itself or table.held_out_split is not None or train.size is None:
        return train, open_held_out(table)
    return train, None


def _is_share(value: Any) -> bool:
    """True for a number between 0 and 1. Another number is a mistake that is named here."""
    if not isinstance(value, (int, float)):
        return False
    if isinstance(value, bool) or not 0 < value < 1:
        raise UserError(f"held_out is a share between 0 and 1, a file or another source, not {value}.")
    return True


def _open_found(table: settings.Prompts, held_out: bool, seed: int) -> Found:
    """One side of a source as prompts."""
    given = ask(table, held_out, seed, Prompt)
    if isinstance(given, Found):
        return given
    if isinstance(given, Rows):
        columns = ColumnMap.of(table, given)
        return Found(RowItems(given, columns.read), given.columns, columns.question)
    for number, prompt in enumerate(given[:CHECKED], start=1):
        check_text({"text": prompt.text, "messages": prompt.messages}, f"prompt {number}")
    prompts = [of_text(prompt, f"prompt {number}") for number, prompt in enumerate(given, start=1)]
    return Found(
        listed(prompts), ("prompt", "answer", *dict.fromkeys(tag for prompt in prompts for tag in prompt.tags))
    )


def ask(table: settings.Prompts, held_out: bool, seed: int, made: type | None = None) -> Any:
    """The `Rows` of a source: those that the function behind it returns, or, where there is none, those of the source
    itself, a path, a hub id or an object. What a table names inside of a column is a column of theirs. But a list of
    what is `made` in Python is returned as it is, and of prompts `Found` as well.

    The function is one in `SOURCES`, or one of your own, named as "module:function". A file or a directory also wins
    over such a name. Raises UserError for a name that is nearly one in `SOURCES`, for a function that cannot be found,
    and for whatever one of your own raises.
    """
    source = given = table.source
    if name := built_in_name(source):
        given = pkgutil.resolve_name(SOURCES[name])(table, held_out, seed)
    elif (function := _own_function(source)) is not None:
        try:
            given = function(table, held_out, seed)
        except UserError:
            raise
        except Exception as error:  # the function is the user's, and may do anything
            raise UserError(f"source {source!r} raised {type(error).__name__}: {one_line(error)}") from error
    elif made is Prompt:
        has_no(table, "levels", "args")
    if made is Prompt and isinstance(given, Found):
        return given
    if made is not None and isinstance(given, (list, tuple)) and given and isinstance(given[0], made):
        return given
    split = (table.held_out_split or "test") if held_out else table.split
    rows = open_rows(given, split, table.config, table.revision if isinstance(table, FromPython) else None)
    return with_inner(rows, [getattr(table, key, None) for key in NAMES_OF_COLUMNS])


def _own_function(source: Any) -> SourceOfPrompts | None:
    if not isinstance(source, str) or ":" not in source or os.path.exists(Path(source).expanduser()):
        return None
    module, _, rest = source.partition(":")
    close = nearest(module, SOURCES)
    hint = f'. Did you mean "{close}:{rest}"?' if close else ""
    if re.fullmatch(r"\w+(\.\w+)*", module) and not ending(Path(source)):
        try:
            return cast(SourceOfPrompts, find_function(source, "source"))
        except UserError as error:
            raise UserError(f"{error}{hint}" if "there is no module" in str(error) else str(error)) from None
    if hint and "/" not in module:
        raise UserError(f"there is no source {source!r}{hint}")
    return None
