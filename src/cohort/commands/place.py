"""Paths of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def full_path(model: str) -> str:
    """The full path of a directory that is here; hub ids stay."""
    path = Path(model).expanduser()
    return str(path.absolute()) if path.is_dir() else model


def told_apart(names: Sequence[str], longest: int = 24) -> list[str]:
    """Paths as they are shown: of long ones the end, as far as it tells them apart."""
    parts = [Path(name).parts for name in names]
    count = next((n for n in range(1, max(map(len, parts))) if len({own[-n:] for own in parts}) == len(names)), None)
    return [
        name if count is None or len(name) <= longest or len(own) <= count else f"…/{'/'.join(own[-count:])}"
        for name, own in zip(names, parts, strict=True)
    ]


def absolute(overrides: Sequence[str]) -> list[str]:
    """Overrides `key=value` whose values are files here, with their full paths."""
    pairs = [override.partition("=") for override in overrides]
    return [f"{key}{sign}{Path(value).absolute() if _is_file(value) else value}" for key, sign, value in pairs]


def _is_file(value: str) -> bool:
    try:
        return bool(value) and Path(value).exists()
    except (OSError, ValueError):  # too long for a name, a null character
        return False
