"""What a person writes for a reward (an option for all rows, or one in each row), and JSON that means one thing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from cohort.wording import did_you_mean


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


def parsed(value: Any, subject: str) -> Any:
    """`value`, or what it says if it is a text that holds JSON. Raises ValueError: "`subject` not JSON"."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{subject} not JSON: {error}") from None


def once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads`: an object in which no key occurs twice; which of the two counts would be anybody's choice."""
    pairs = list(pairs)
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found
