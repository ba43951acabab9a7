"""From what a table says of a source to the function behind it, and from what that returns to prompts or rows."""

from __future__ import annotations

import os
import pkgutil
import re
from pathlib import Path
from typing import Any

from cohort import settings
from cohort.tasks.prompts import CHECKED, ItemList, RowItems, Rows, check_text, first
from cohort.tasks.sources.base import Found, FromPython, SourceOfPrompts, has_no
from cohort.tasks.sources.columns import ColumnMap
from cohort.tasks.sources.names import SOURCES, built_in_name
from cohort.tasks.sources.rows import READERS, open_rows
from cohort.types import Prompt, UserError
from cohort.wording import find_function, nearest, one_line

__all__ = ["find_source", "is_list_of", "open_found", "rows_of"]


def open_found(table: settings.Prompts, held_out: bool, seed: int) -> Found:
    """One side of a source as prompts. The first rows are read, so that a bad one is found before a model loads."""
    source = find_source(table.source)
    if source is _as_it_is:
        has_no(table, "levels", "args")
    given = source(table, held_out, seed)
    if isinstance(given, Found):
        return given
    if is_list_of(Prompt, given):
        for number, prompt in enumerate(given[:CHECKED], start=1):
            check_text({"text": prompt.text, "messages": prompt.messages}, f"prompt {number}")
        tags = dict.fromkeys(tag for prompt in given for tag in prompt.tags)
        return Found(ItemList(given), ("prompt", "answer", *tags))
    rows = rows_of(given, table, held_out)
    columns = ColumnMap.of(table, rows)
    prompts = RowItems(rows, columns.read)
    for _ in first(prompts, CHECKED):
        pass  # reading a row checks it
    return Found(prompts, rows.columns, columns.question)


def rows_of(given: Any, table: settings.Prompts, held_out: bool) -> Rows:
    """The rows in what a source returned: a path or hub id, a dataset, or a list of dicts."""
    split = (table.held_out_split or "test") if held_out else table.split
    return open_rows(given, split, table.config, table.revision if isinstance(table, FromPython) else None)


def is_list_of(kind: type, given: Any) -> bool:
    """Whether somebody made the items in Python: a list that begins with one of this kind."""
    return isinstance(given, (list, tuple)) and bool(given) and isinstance(given[0], kind)


def find_source(source: Any) -> SourceOfPrompts:
    """The function behind a source: one in `SOURCES`, or one of your own, named as "module:function".

    What is none of these is rows; a file or a directory also wins over "module:function". Raises UserError for a name
    that is nearly one in `SOURCES`, and for a function that cannot be found.
    """
    if name := built_in_name(source):
        found: SourceOfPrompts = pkgutil.resolve_name(SOURCES[name])
        return found
    if not isinstance(source, str) or ":" not in source or os.path.exists(Path(source).expanduser()):
        return _as_it_is
    module, _, rest = source.partition(":")
    close = nearest(module, SOURCES)
    hint = f'. Did you mean "{close}:{rest}"?' if close else ""
    if re.fullmatch(r"\w+(\.\w+)*", module) and Path(source).suffix.lower() not in READERS:
        try:
            return _own(source, find_function(source, "source"))
        except UserError as error:
            raise UserError(f"{error}{hint}" if "there is no module" in str(error) else str(error)) from None
    if hint and "/" not in module:
        raise UserError(f"there is no source {source!r}{hint}")
    return _as_it_is


def _as_it_is(table: settings.Prompts, held_out: bool, seed: int) -> Any:
    """A path, a hub id or an object from Python: whoever asks reads the rows."""
    return table.source


def _own(source: str, function: SourceOfPrompts) -> SourceOfPrompts:
    """A function of one's own. What it raises is said with its name."""

    def call(table: settings.Prompts, held_out: bool, seed: int, /) -> Any:
        try:
            return function(table, held_out, seed)
        except UserError:
            raise
        except Exception as error:  # the function is the user's, and may do anything
            raise UserError(f"source {source!r} raised {type(error).__name__}: {one_line(error)}") from error

    return call
