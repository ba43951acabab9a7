"""Is what came out what was wanted? Values by type, texts by lines and words, decimals by relative difference."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any

__all__ = ["same_text", "same_value"]

_ZERO = 1e-12  # this near to a wanted zero is rounding: no relative difference can tell
_LONGEST_NUMBER = 400  # characters
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,4})?", re.ASCII)


def same_value(found: Any, wanted: Any, tolerance: float) -> bool:
    """Whether two plain values are equal: numbers as numbers (a bool is none), where a float is wanted up to the
    relative `tolerance`; a tuple may stand for a list, because JSON has no tuples; everything else by type and content.
    """
    if isinstance(wanted, bool) or isinstance(found, bool) or wanted is None or found is None:
        return type(found) is type(wanted) and bool(found == wanted)
    if isinstance(wanted, float):
        return isinstance(found, (int, float)) and _near(found, wanted, tolerance)
    if isinstance(wanted, int):
        return isinstance(found, (int, float)) and found == wanted
    if isinstance(wanted, (list, tuple)):
        if not isinstance(found, (list, tuple)) or len(found) != len(wanted):
            return False
        return all(same_value(f, w, tolerance) for f, w in zip(found, wanted))
    if isinstance(wanted, dict):
        if not isinstance(found, dict) or _typed(found) != _typed(wanted):
            return False
        return all(same_value(found[key], value, tolerance) for key, value in wanted.items())
    if isinstance(wanted, (set, frozenset)):
        return isinstance(found, (set, frozenset)) and _typed(found) == _typed(wanted)
    return type(found) is type(wanted) and bool(found == wanted)


def same_text(found: bytes, wanted: str, tolerance: float) -> bool:
    """Whether a program has printed what it should: the same words in the same lines. The space between words, at the
    ends of lines and empty lines at the end do not count. A wanted decimal (with a point or an exponent) is compared as
    a number, up to the relative `tolerance`.
    """
    lines, wanted_lines = _lines(found.decode("utf-8", "surrogateescape")), _lines(wanted)
    if lines == wanted_lines:
        return True
    if len(lines) != len(wanted_lines):
        return False
    for line, wanted_line in zip(lines, wanted_lines):
        if len(line) != len(wanted_line):
            return False
        if not all(f == w or _same_decimal(f, w, tolerance) for f, w in zip(line, wanted_line)):
            return False
    return True


def _lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.rstrip().split("\n")]


def _same_decimal(found: str, wanted: str, tolerance: float) -> bool:
    if not any(mark in wanted for mark in ".eE") or max(len(found), len(wanted)) > _LONGEST_NUMBER:
        return False
    if not _NUMBER.fullmatch(wanted) or not _NUMBER.fullmatch(found):
        return False
    return _near(float(found), float(wanted), tolerance)


def _near(found: float, wanted: float, tolerance: float) -> bool:
    if wanted == 0:
        return abs(found) <= _ZERO
    if math.isnan(wanted):
        return found != found  # math.isnan refuses an int beyond all floats
    try:
        return math.isclose(found, wanted, rel_tol=tolerance, abs_tol=0.0)
    except OverflowError:  # an int beyond all floats
        return False


def _typed(keys: Collection[Any]) -> set[tuple[bool, Any]]:
    """Keys in which True is not 1."""
    return {(isinstance(key, bool), key) for key in keys}
