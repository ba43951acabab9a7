"""Regular expressions that people write, on text that models write: bounded, because some never end together.

They are those of the `regex` package, which reads what Python's `re` reads and stops at a time limit.
"""

from __future__ import annotations

from functools import lru_cache

import regex

__all__ = ["check_pattern", "matches"]


def matches(pattern: str, text: str, whole: bool, timeout_s: float) -> bool:
    """Whether `pattern` matches `text`, all of it or a part; `.` matches a newline only with (?s).

    Raises TimeoutError after `timeout_s` seconds of processor time, ValueError for a pattern that is none.
    """
    compiled = _compiled(pattern)
    found = compiled.fullmatch(text, timeout=timeout_s) if whole else compiled.search(text, timeout=timeout_s)
    return found is not None


def check_pattern(pattern: object) -> None:
    """Raise ValueError if `pattern` is no regular expression."""
    if not isinstance(pattern, str):
        raise ValueError(f"a pattern is a text, not {pattern!r:.80}")
    _compiled(pattern)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> regex.Pattern[str]:
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        raise ValueError(f"the pattern {pattern!r:.80} is no regular expression: {error}") from None
