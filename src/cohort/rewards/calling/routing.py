"""Which rewards score a prompt: `when = { domain = "math" }` compares columns of the prompt's row with values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from cohort.types import UserError
from cohort.wording import did_you_mean

__all__ = ["applies", "check_when"]


def applies(when: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether every column named in `when` has the value that stands there, or one of a list of values."""
    return all(column in row and _is(row[column], wanted) for column, wanted in when.items())


def _is(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, (list, tuple)):
        return any(_is(value, one) for one in wanted)
    # True == 1 in Python, but `when = { hard = true }` does not mean the row whose column says 1.
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def check_when(when: Mapping[str, Any], columns: Collection[str] | None, name: str) -> None:
    """Refuse a column that the task does not have (its `columns`, where they are known)."""
    for column in when if columns is not None else ():
        assert columns is not None
        if column not in columns:
            raise UserError(
                f"reward '{name}' asks for the column '{column}' in `when`{did_you_mean(column, columns)}, which the "
                f"task does not have; it has {', '.join(columns) or 'none besides the question and the answer'}"
            )
