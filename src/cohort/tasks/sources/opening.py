"""From the table of one source to its training and its held-out prompts, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from cohort import settings
from cohort.tasks.prompts import Items, LeveledPrompts, Prompts, limited, split_by_hash
from cohort.tasks.sources.base import FromPython
from cohort.tasks.sources.distinct import Distinct
from cohort.tasks.sources.find import open_found
from cohort.types import Prompt, UserError

__all__ = ["DOMAIN", "OpenSource", "is_share", "open_source", "with_held_out"]

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
    split_by_hash: bool = False  # one question is then never on both sides
    environment: str | None = None  # the one that must play its prompts, see `Found`

    @property
    def leveled(self) -> LeveledPrompts:
        """The training prompts of a source that has levels, as one with a curriculum must."""
        return cast(LeveledPrompts, self.train)

    @property
    def levels(self) -> tuple[int | None, ...]:
        """The levels that a curriculum chooses from; (None,) without one, for then the source itself orders them."""
        return (None,) if self.table.curriculum is None else self.leveled.levels

    def prompt(self, level: int | None, index: int) -> Prompt:
        """The training prompt number `index` (of a level). A source with an end begins anew."""
        if level is not None:
            found = self.leveled.at(level, index)
        else:
            found = self.train[index if self.train.size is None else index % self.train.size]
        return self.tagged(found)

    def tagged(self, prompt: Prompt) -> Prompt:
        """The prompt with the name of its source among its tags."""
        return replace(prompt, tags={**prompt.tags, DOMAIN: self.name}) if self.name else prompt


def open_source(table: settings.Prompts, seed: int, held_out_seed: int, name: str = "") -> OpenSource:
    """Open both sides of a source. `held_out_seed` is the seed of held-out problems that are made."""
    found = open_found(table, False, seed)
    train, held_out = with_held_out(
        *(table, found.prompts, "prompt", lambda prompt: prompt),
        lambda other: open_found(other, True, held_out_seed).prompts,
    )
    if found.distinct and table.limit is not None:
        train = Distinct(train, table.limit, str(table.source))
    else:
        train = limited(train, table.limit)
    by_hash = is_share(table.held_out)
    columns, question, environment = found.columns, found.question, found.environment
    return OpenSource(name, table, train, held_out, columns, question, split_by_hash=by_hash, environment=environment)


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
    share, itself = is_share(table.held_out), isinstance(table.held_out, str) and table.held_out == table.source
    named = table.held_out is not None
    if train.size is None and (share or (table.held_out_split is not None and not named)):
        key = f"held_out = {table.held_out}" if share else f"held_out_split = {table.held_out_split!r}"
        raise UserError(f"{table.source} holds out its own problems; remove {key}.")
    if share:
        return split_by_hash(train, float(cast(float, table.held_out)), thing, prompt_of)
    if named and not itself:
        return train, open_held_out(_table_of_held_out(table))
    if itself or table.held_out_split is not None or train.size is None:
        return train, open_held_out(table)
    return train, None


def _table_of_held_out(table: settings.Prompts) -> settings.Prompts:
    """The table of another source: with the columns of this one, but none of the settings that are this one's own."""
    own = (
        "config",
        "levels",
        "args",
        "limit",
        "curriculum",
        "adaptive",
        *(["revision"] * isinstance(table, FromPython)),
    )
    fields = type(table).model_fields
    changed = {key: fields[key].get_default(call_default_factory=True) for key in own}
    return table.model_copy(update={**changed, "source": table.held_out, "held_out": None})


def is_share(value: Any) -> bool:
    """True for a number between 0 and 1. Another number is a mistake that is named here."""
    if not isinstance(value, (int, float)):
        return False
    if isinstance(value, bool) or not 0 < value < 1:
        raise UserError(f"held_out is a share between 0 and 1, a file or another source, not {value}.")
    return True
