"""Checkpoints: everything a stage needs to go on as if it had never stopped, written in one step.

A checkpoint is a Hugging Face model directory with what the stage adds to it, `state.json`: the step, and what the
stage says of itself, its prompt ledger first of all; and a manifest of all of it. No random state is saved, because
every seed is derived from the recipe.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from safetensors import SafetensorError

from cohort.record.files import discard, remove
from cohort.record.manifest import damage, sealed_directory
from cohort.types import UnreadableError, UserError


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk."""

    path: Path
    step: int
    state: Mapping[str, Any]

    @property
    def ledger(self) -> Mapping[str, Any] | None:
        """Which prompts were consumed; None where another run goes on from here with prompts of its own."""
        return self.state.get("ledger")


def save_checkpoint(
    directory: Path,
    step: int,
    save: Callable[[Path], Mapping[str, Any]],
    announce: Callable[[Path, dict[str, str]], None] = lambda *_: None,
) -> None:
    """Write `directory/step-000050`, whole or not at all: what `save` writes, and the state that it returns. Before it
    is there `announce` gets its path and the digests of its files.
    """
    path = path_of(directory, step)
    with sealed_directory(path, lambda files: announce(path, files)) as new:
        state = {"step": step, **save(new)}
        (new / "state.json").write_bytes(orjson.dumps(state, option=orjson.OPT_INDENT_2))


def path_of(directory: Path, step: int | None) -> Path:
    """Where the checkpoint of a step is."""
    return directory / f"step-{step or 0:06d}"


def latest_step(directory: Path) -> int | None:
    """The step of the newest checkpoint, if there is any; whether it is whole is seen when it is loaded."""
    return max(checkpoints_in(directory), default=None)


def load_checkpoint(directory: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint; None where there is none at all. Damaged ones are put aside, which is said. Raises
    `UserError` when all are damaged: a stage that has trained does not begin anew in silence.
    """
    damaged: list[tuple[Path, str]] = []
    for path in reversed(checkpoints_in(directory).values()):
        checkpoint, problem = _read(path)
        if checkpoint is not None:
            for bad, why in damaged:
                aside = bad.with_name(f"damaged-{bad.name}")
                remove(aside)
                bad.rename(aside)
                on = f"going on from step {checkpoint.step}. It is kept as {aside.name}"
                warn(f"the checkpoint {bad} is damaged ({why}); {on}")
            return checkpoint
        damaged.append((path, problem))
    if damaged:
        path, problem = damaged[0]
        raise UserError(
            f"the checkpoint {path} is damaged ({problem}), and there is no whole one before it. Restore it from a "
            f"copy, or delete {directory} to train this stage from its beginning."
        )
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`. Raises `UserError` for one that is not as it was written."""
    checkpoint, problem = _read(path)
    if checkpoint is None:
        raise UserError(f"the checkpoint {path} is damaged ({problem})")
    return checkpoint


def checkpoint_of(directory: Path, step: int, advice: str = "") -> Checkpoint:
    """The checkpoint of a step. Raises `UnreadableError`, with the steps that have one, where this has none."""
    there = checkpoints_in(directory)
    if step not in there:
        listed = f"it has those of {', '.join(map(str, there))}" if there else "it has none"
        raise UnreadableError(f"{directory} has no checkpoint of step {step}; {listed}{advice}")
    return read_checkpoint(there[step].absolute())


def _read(path: Path) -> tuple[Checkpoint | None, str]:
    """The checkpoint at `path`, or what is wrong with it."""
    if (problem := damage(path)) is not None:
        return None, problem
    try:
        state = orjson.loads((path / "state.json").read_bytes())
        of = f"step-{state['step']:06d}"
    except (OSError, ValueError, KeyError, TypeError):
        return None, "state.json cannot be read"
    return (Checkpoint(path, state["step"], state), "") if path.name == of else (None, f"it is of step {state['step']}")


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


def prune(directory: Path, keep: int, needed: Iterable[int] = ()) -> None:
    """Delete all but the `keep` newest checkpoints, and those of the steps that are `needed`."""
    kept = [*newest(directory, keep), *(path_of(directory, step) for step in needed)]
    for path in checkpoints_in(directory).values():
        if path not in kept:
            discard(path)


def newest(directory: Path, keep: int) -> list[Path]:
    """The `keep` newest checkpoints, the oldest first."""
    return list(checkpoints_in(directory).values())[-keep:] if keep else []


def checkpoints_in(directory: Path) -> dict[int, Path]:
    """The checkpoints in a directory, oldest first."""
    found = [path for path in directory.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return dict(sorted((int(path.name.removeprefix("step-")), path) for path in found))
