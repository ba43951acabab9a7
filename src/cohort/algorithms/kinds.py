"""The kinds of fields that an objective has: one of a few values, a number, or a list of terms."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple


class Choice(NamedTuple):
    """A field that holds one of a few values: what it decides, and one sentence on what each value does."""

    about: str
    meanings: Mapping[str | int, str]
    short: Mapping[str | int, str] = {}  # the value in a few words, where its name does not say it


class Number(NamedTuple):
    """A field that holds a number: what it decides, what a value does (for `{}`), and the values that it may have."""

    about: str
    meaning: str
    at_least: float | None = None
    above: float | None = None
    optional: bool = False  # it may be None, which is "off"
    at_most_in_recipes: float | None = None  # presets may go beyond it


class Terms(NamedTuple):
    """A field that holds a tuple: what it decides, what it does (for `{}`), and what makes a value of what was given.

    `read` takes the field's name and the value, and raises ValueError for what makes no sense. `nested`: it is a tuple
    of tuples. () is "off".
    """

    about: str
    meaning: str
    read: Callable[[str, Any], tuple[Any, ...]]
    nested: bool = False


def nearest(word: object, known: Iterable[str | int]) -> str:
    """`; did you mean 'dapo'? Choose one of ...`, without the question where nothing is near. (This room imports no
    other, so it has its own.)
    """
    names = [str(name) for name in known]
    matches = difflib.get_close_matches(str(word), names, n=1, cutoff=0.5)
    choose = f"did you mean {matches[0]!r}? Choose" if matches else "choose"
    return f"; {choose} one of: {', '.join(names)}"
