"""Says in plain words what a value must be, so that no validation library ever speaks to the user."""

from __future__ import annotations

import datetime
import re
import types
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cohort.wording import nearest

_SHOWN = 60  # characters of a bad value worth repeating


def callable_path(function: Callable[..., Any]) -> str:
    """The name under which a function can be imported, as "module:qualname" (a partial has its function's name)."""
    function = getattr(function, "func", function)
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def plain(value: Any) -> Any:
    """A value as JSON and TOML take it: of a function the name under which it can be imported."""
    return callable_path(value) if callable(value) else value


def shown(value: Any) -> str:
    """A value as a recipe would write it, cut short."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > 10_000:  # Python refuses to write it out
        return "a number with thousands of digits"
    if isinstance(value, datetime.date | datetime.time):
        return f"the date {value.isoformat()}"
    if isinstance(value, BaseModel):
        return "a table"
    if isinstance(value, dict):
        pairs = ", ".join(f"{key} = {shown(item)}" for key, item in list(value.items())[:_SHOWN])
        text = f"{{ {pairs} }}" if pairs else "{}"
    elif callable(value):
        text = callable_path(value)
    else:
        text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def either(items: Iterable[str]) -> str:
    """'a', 'a or b', 'a, b or c'."""
    *most, last = list(items)
    return f"{', '.join(most)} or {last}" if most else last


def _bounds(metadata: Iterable[Any]) -> str:
    """'of at least 1', 'greater than 0 and at most 1', 'between 0 and 1': the limits in a field's metadata."""
    words = (("ge", "at least"), ("gt", "greater than"), ("le", "at most"), ("lt", "less than"))
    limits = [f"{word} {getattr(m, key):_}" for m in metadata for key, word in words if hasattr(m, key)]
    if not limits:
        return ""
    if [limit.rsplit(" ", 1)[0] for limit in limits] == ["greater than", "less than"]:
        return f" between {limits[0].split()[-1]} and {limits[1].split()[-1]}"
    return (" of " if limits[0].startswith("at ") else " ") + " and ".join(limits)


def _words(annotation: Any, metadata: list[Any]) -> list[str]:
    """The alternatives that the type allows, each in words."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return []
    if origin is Annotated:
        extra = [m for a in args[1:] for m in (a.metadata if isinstance(a, FieldInfo) else [a])]
        return _words(args[0], metadata + extra)
    if origin in (Union, types.UnionType):
        return [word for part in args for word in _words(part, metadata)]
    if origin is Literal:
        return [shown(choice) for choice in args]
    if annotation is bool:
        return ["true or false"]
    if annotation is int:
        return ["a whole number" + _bounds(metadata)]
    if annotation is float:
        return ["a number" + _bounds(metadata)]
    if annotation is str and (parts := [name for m in metadata for name in getattr(m, "parts", ())]):
        return [*map(shown, parts), "module:name of your own"]
    if annotation is str:
        return ["text that is not empty" if any(hasattr(m, "min_length") for m in metadata) else "text"]
    if origin in (tuple, list):
        item = either(_words(args[0], [])).removeprefix("a ").replace("number", "numbers").replace("text", "texts")
        return [f"a list of {item}" if args[-1] is ... or origin is list else f"a list of {len(args)} {item}"]
    if origin is dict:
        items = _words(args[1], []) if args[1] is not Any else []
        if not items:
            return ["a table"]
        keys = f" by {either(_words(args[0], []))}" if get_origin(args[0]) is Literal else ""
        return [f"a table of {either(items).removeprefix('a ').replace('number', 'numbers')}{keys}"]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return ["a table"]
    return ["a function"]


def wrong_value(path: str, field: FieldInfo, value: Any) -> str:
    """The sentence for a value that a field does not take."""
    words = _words(field.annotation, list(field.metadata))
    choices = [word.strip("'") for word in words if word.startswith("'")]
    close = nearest(value, choices) if isinstance(value, str) else None
    hint = f"; did you mean {close!r}?" if close else ""
    must = either(words)
    if not (isinstance(value, int | float) and value > 1000):  # large bounds are for slips of the hand only
        must = re.sub(r" and at most [\d_]{4,}", "", must)
    must = f"one of {must}" if len(choices) > 2 and must.startswith("'") else must
    return f"{path} must be {must}, not {shown(value)}{hint}"


def missing(path: str, field: FieldInfo) -> str:
    """The sentence for a value that has no default and was not given."""
    what = (field.description or "").rstrip(".")
    return f"{path} is missing: give {what[:1].lower()}{what[1:]}"


def report(sentences: list[str]) -> str:
    """All problems in one message."""
    if len(sentences) == 1:
        return sentences[0]
    return f"the recipe has {len(sentences)} problems:\n" + "\n".join(f"  - {sentence}" for sentence in sentences)
