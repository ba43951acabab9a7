"""Writes TOML. Only what a recipe can hold: text, numbers, true and false, lists and tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cohort.settings.words import callable_path

__all__ = ["toml_key", "toml_value"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def _text(value: str) -> str:
    """A basic string. TOML forbids raw control characters."""
    written = "".join(_ESCAPES.get(c) or (f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else c) for c in value)
    return f'"{written}"'


def toml_key(key: str) -> str:
    """A key, in quotes where it needs them."""
    return key if _BARE.fullmatch(key) else _text(key)


def toml_value(value: Any) -> str:
    """A value on one line; a function is written as module:qualname."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        written = repr(value)  # the shortest text that reads back as the same number
        return written if re.search(r"[.en]", written) else f"{written}.0"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{toml_key(key)} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if callable(value):
        return _text(callable_path(value))
    raise TypeError(f"TOML has no {type(value).__name__}")
