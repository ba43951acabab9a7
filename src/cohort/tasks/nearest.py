"""Did you mean ...?"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["nearest"]


def nearest(name: str, options: Iterable[str]) -> str | None:
    """The option most like `name`, or None where nothing is close. Upper and lower case count as the same."""
    by_lower = {option.lower(): option for option in options}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None
