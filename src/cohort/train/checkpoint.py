"""Checkpoints: everything a stage needs to go on as if it had never stopped, written in one step.

A checkpoint is a Hugging Face model directory with what the stage adds to it, and `state.json`: the step, and what the
stage says of itself, its prompt ledger first of all. No random state is saved, because every seed is derived from the
recipe.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from safetensors import SafetensorError

from cohort.record.files import new_directory
from cohort.types import UserError


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk."""

    path: Path
    step: int
    state: Mapping[str, Any]


def save_checkpoint(directory: Path, step: int, save: Callable[[Path], Mapping[str, Any]]) -> None:
    """Write `directory/step-000050`, whole or not at all: what `save` writes, and the state that it returns."""
    with new_directory(directory / f"step-{step:06d}") as new:
        state = {"step": step, **save(new)}
        (new / "state.json").write_bytes(orjson.dumps(state, option=orjson.OPT_INDENT_2))


def latest_checkpoint(directory: Path) -> Checkpoint | None:
    """The newest whole checkpoint, if there is any."""
    found = _whole(directory)
    if not found:
        return None
    with readable(found[-1]):
        state = orjson.loads((found[-1] / "state.json").read_bytes())
        return Checkpoint(found[-1], state["step"], state)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Around everything that reads the checkpoint at `path`: a damaged one is refused with a sentence."""
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
    for path in _whole(directory)[:-keep]:
        shutil.rmtree(path)


def _whole(directory: Path) -> list[Path]:
    """The checkpoints in a directory, oldest first."""
    found = [path for path in directory.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))
