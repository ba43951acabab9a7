"""Checkpoints: everything a stage needs to go on as if it had never stopped, written in one step.

A checkpoint is a Hugging Face model directory with what the stage adds to it, `state.json`: the step, and what the
stage says of itself, its prompt ledger first of all; and a manifest of all of it. No random state is saved, because
every seed is derived from the recipe.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from safetensors import SafetensorError

from cohort.record.files import discard, remove
from cohort.record.manifest import damage, sealed_directory
from cohort.types import UserError


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk."""

    path: Path
    step: int
    state: Mapping[str, Any]


def save_checkpoint(
    directory: Path,
    step: int,
    save: Callable[[Path], Mapping[str, Any]],
    announce: Callable[[Path, dict[str, str]], None] = lambda *_: None,
) -> None:
    """Write `directory/step-000050`, whole or not at all: what `save` writes, and the state that it returns. Before it
    is there `announce` gets its path and the digests of its files.
    """
    path = directory / f"step-{step:06d}"
    with sealed_directory(path, lambda files: announce(path, files)) as new:
        state = {"step": step, **save(new)}
        (new / "state.json").write_bytes(orjson.dumps(state, option=orjson.OPT_INDENT_2))


def latest_step(directory: Path) -> int | None:
    """The step of the newest checkpoint, if there is any; whether it is whole is seen when it is loaded."""
    steps = list(_by_step(directory))
    return steps[-1] if steps else None


def load_checkpoint(directory: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint; None where there is none at all. Damaged ones are put aside, which is said. Raises
    `UserError` when all are damaged: a stage that has trained does not begin anew in silence.
    """
    damaged: list[tuple[Path, str]] = []
    for step, path in reversed(_by_step(directory).items()):
        problem, state = damage(path), {}
        if problem is None:
            state = orjson.loads((path / "state.json").read_bytes())
            problem = None if state["step"] == step else f"it is of step {state['step']}"
        if problem is None:
            for bad, why in damaged:
                aside = bad.with_name(f"damaged-{bad.name}")
                remove(aside)
                bad.rename(aside)
                warn(f"the checkpoint {bad} is damaged ({why}); going on from step {step}. It is kept as {aside.name}")
            return Checkpoint(path, step, state)
        damaged.append((path, problem))
    if damaged:
        path, problem = damaged[0]
        raise UserError(
            f"the checkpoint {path} is damaged ({problem}), and there is no whole one before it. Restore it from a "
            f"copy, or delete {directory} to train this stage from its beginning."
        )
    return None


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Around everything that reads the checkpoint at `path`: what cannot be read is refused with a sentence."""
    try:
        yield
    except (OSError, orjson.JSONDecodeError, SafetensorError, KeyError, RuntimeError) as error:
        what = " ".join(str(error).split())[:200]
        raise UserError(f"the checkpoint {path} is damaged ({what}); delete it to resume from an older one") from None
    except UserError as error:
        if "cannot load the model" in str(error):
            raise UserError(f"{error}. Delete the checkpoint {path} to resume from an older one") from None
        raise


def prune(directory: Path, keep: int) -> None:
    """Delete all but the `keep` newest checkpoints."""
    kept = newest(directory, keep)
    for path in _by_step(directory).values():
        if path not in kept:
            discard(path)


def newest(directory: Path, keep: int) -> list[Path]:
    """The `keep` newest checkpoints, the oldest first."""
    return list(_by_step(directory).values())[-keep:] if keep else []


def _by_step(directory: Path) -> dict[int, Path]:
    """The checkpoints in a directory, oldest first."""
    found = [path for path in directory.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return dict(sorted((int(path.name.removeprefix("step-")), path) for path in found))
