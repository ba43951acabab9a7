"""An option of a reward that has one value for all rows (from its args), or one for each row (from a column)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cohort.wording import did_you_mean

__all__ = ["for_row"]


def for_row(what: str, value: Any, column: str | None, row: Mapping[str, Any]) -> Any:
    """`value`, or what the row holds in `column`. Raises ValueError unless exactly one of the two is there."""
    if (value is None) == (column is None):
        given = "neither is" if value is None else "both are"
        raise ValueError(
            f"give either {what} for all rows or column, the name of the column that holds it; {given} given"
        )
    if column is None:
        return value
    if row.get(column) is None:
        raise ValueError(f"the row has no {what} in its column '{column}'{did_you_mean(column, row)}")
    return row[column]
