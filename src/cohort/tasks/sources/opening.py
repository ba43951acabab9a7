"""From the table of one source to the function behind it, and to its training and its held-out prompts, checked."""

from __future__ import annotations

import os
import pkgutil
import re
from collections.abc import Callable, Sequence
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
    asked_in,
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


def open_source(
    table: settings.Prompts, seed: int, held_out_seed: int, name: str = "", held_out_side: bool = False
) -> OpenSource:
    """Open both sides of a source, or with `held_out_side` that one alone, as what is trained on. `held_out_seed` is
    the seed of held-out problems that are made.
    """
    made, questions = made_by(table, held_out_side, seed), None
    if isinstance(made, Found):
        found = made
    elif isinstance(made, (list, tuple)) and made and isinstance(made[0], Prompt):
        found = _of_python(made)
    else:
        rows = with_inner(open_rows(made, *side_of(table, held_out_side)), names_in(table))
        columns = ColumnMap.of(table, rows)
        all_of_them = held_out_side or isinstance(table.held_out, float)  # a limit is for what is left to train on
        read = RowItems(rows, columns.read, None if all_of_them else table.limit)
        found = Found(read, rows.columns, columns.question)
        questions = (columns.asked(row, rows.place(index)) for index, row in enumerate(rows))
    train: Prompts = found.prompts
    asked: Prompts | None = None
    if held_out_side:
        return OpenSource(name, table, train, None, found.columns, found.question)
    if (share := share_of(table, train.size)) is not None:
        train, asked = split_by_hash(train, share, "prompt", questions or asked_in(train, lambda prompt: prompt))
    elif (other := held_out_table(table, train.size)) is not None:
        asked = open_source(other, held_out_seed, held_out_seed, held_out_side=True).train
    if found.distinct and table.limit is not None:
        train = Distinct(train, table.limit, str(table.source))
    else:
        train = limited(train, table.limit)
    return OpenSource(name, table, train, asked, found.columns, found.question, environment=found.environment)


def held_out_table(table: settings.Prompts, size: int | None) -> settings.Prompts | None:
    """The table of what is held out where that is no share of the source: another source, another split, or None.

    A source without an end (`size` None) makes its own held-out problems where the table says nothing.
    """
    itself = isinstance(table.held_out, str) and table.held_out == table.source
    if table.held_out is not None and not itself:
        # the columns of this source hold for the other one, but not what is this one's own
        own = ("config", "revision", "levels", "args", "limit", "curriculum", "adaptive")
        fields = type(table).model_fields
        plain = {key: fields[key].get_default(call_default_factory=True) for key in own if key in fields}
        return table.model_copy(update={**plain, "source": table.held_out, "held_out": None})
    return table if itself or table.held_out_split is not None or size is None else None


def share_of(table: settings.Prompts, size: int | None) -> float | None:
    """The share of a source that is held out; None where nothing is, or something else."""
    value = table.held_out
    share = value if isinstance(value, (int, float)) else None
    if share is not None and (isinstance(share, bool) or not 0 < share < 1):
        raise UserError(f"held_out is a share between 0 and 1, a file or another source, not {value}.")
    if size is None and (share is not None or (table.held_out_split is not None and value is None)):
        key = f"held_out_split = {table.held_out_split!r}" if share is None else f"held_out = {value}"
        raise UserError(f"{table.source} holds out its own problems; remove {key}.")
    return share


def _of_python(made: Sequence[Prompt]) -> Found:
    """Prompts that a program made."""
    for number, prompt in enumerate(made[:CHECKED], start=1):
        check_text({"text": prompt.text, "messages": prompt.messages}, f"prompt {number}")
    prompts = [of_text(prompt, f"prompt {number}") for number, prompt in enumerate(made, start=1)]
    tags = dict.fromkeys(tag for prompt in prompts for tag in prompt.tags)
    return Found(listed(prompts), ("prompt", "answer", *tags))


def made_by(table: settings.Prompts, held_out: bool, seed: int) -> Any:
    """What the function behind a source returns; where there is none, the source itself: a path, a hub id, an object.

    The function is one in `SOURCES`, or one of your own, named as "module:function". A file or a directory also wins
    over such a name. Raises UserError for a name that is nearly one in `SOURCES`, for a function that cannot be found,
    and for whatever one of your own raises.
    """
    source = table.source
    if name := built_in_name(source):
        return pkgutil.resolve_name(SOURCES[name])(table, held_out, seed)
    if (function := _own_function(source)) is None:
        has_no(table, "levels", "args")
        return source
    try:
        return function(table, held_out, seed)
    except UserError:
        raise
    except Exception as error:  # the function is the user's, and may do anything
        raise UserError(f"source {source!r} raised {type(error).__name__}: {one_line(error)}") from error


def side_of(table: settings.Prompts, held_out: bool) -> tuple[str, str | None, str | None, str]:
    """Split, configuration and revision of one side of a source of rows, and which key chose the split; "": none did,
    or a function is the source, which may have read it.
    """
    split = (table.held_out_split or "test") if held_out else table.split
    chosen = table.held_out_split is not None if held_out else split != type(table).model_fields["split"].default
    key = f"{'held_out_split' if held_out else 'split'} = {split!r}"
    of = table.revision if isinstance(table, FromPython) else None
    made = built_in_name(table.source) or _own_function(table.source)
    return split, table.config, of, key if chosen and made is None else ""


def names_in(table: settings.Prompts) -> list[str | None]:
    """The columns that a table names."""
    return [getattr(table, key, None) for key in NAMES_OF_COLUMNS]


def rows_of(made: Any, table: settings.Prompts, held_out: bool) -> Rows:
    """The rows of what `made_by` gave for one side of a source, with the columns that the table names."""
    return with_inner(open_rows(made, *side_of(table, held_out)), names_in(table))


def both_sides(
    table: settings.Task,
    read: Callable[[settings.Prompts, bool], Items[T]],
    thing: str,
    prompt_of: Callable[[T], Prompt],
) -> tuple[Items[T], Items[T] | None]:
    """What is trained on and what is held out (None: nothing is), of things that `read` makes of a table and a side.
    `thing` is the word for one. A share that is held out goes by the question, which `prompt_of` knows, so that none is
    on both sides.
    """
    train = read(table, False)
    held_out: Items[T] | None = None
    if (share := share_of(table, train.size)) is not None:
        train, held_out = split_by_hash(train, share, thing, asked_in(train, prompt_of))
    elif (other := held_out_table(table, train.size)) is not None:
        held_out = read(other, True)
    return limited(train, table.limit), held_out


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
