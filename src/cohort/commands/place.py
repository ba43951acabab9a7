"""Where a run was trained: what its recipe names by relative paths, and its modules, are found from there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson

from cohort.views.console import Console


@contextlib.contextmanager
def where_trained(run: str | Path) -> Iterator[None]:
    """For as long as the context lasts the process is in the directory in which `run` was trained, which is said; where
    its inputs are here as well, or that directory is gone, it stays.
    """
    try:
        facts = orjson.loads((Path(run).expanduser() / "environment.json").read_bytes())
        there, inputs = Path(facts["directory"]), [path for path in facts["inputs"] if not Path(path).is_absolute()]
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):  # a model from elsewhere
        there, inputs = Path.cwd(), []
    here = bool(inputs) and all(Path(path).expanduser().exists() for path in inputs)
    if here or there == Path.cwd() or not there.is_dir():
        yield
        return
    Console().warn(f"in {there}, where {run} was trained")
    with contextlib.chdir(there):
        yield


def full_path(model: str) -> str:
    """The full path of a directory that is here; hub ids stay."""
    path = Path(model).expanduser()
    return str(path.absolute()) if path.is_dir() else model


def absolute(overrides: Sequence[str]) -> list[str]:
    """Overrides `key=value` whose values are files here, with their full paths."""
    pairs = [override.partition("=") for override in overrides]
    return [f"{key}{sign}{Path(value).absolute() if _is_file(value) else value}" for key, sign, value in pairs]


def _is_file(value: str) -> bool:
    try:
        return bool(value) and Path(value).exists()
    except (OSError, ValueError):  # too long for a name, a null character
        return False
