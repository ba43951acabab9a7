"""Checkpoints: everything a run needs to go on as if it had never stopped, written in one step.

A checkpoint is a Hugging Face model directory with three more files: `optimizer.safetensors`, `state.json` (step and
prompt ledger) and, when groups were sampled ahead, `pending.parquet`. No random state is saved, because every seed is
derived from the recipe.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from cohort.learn.critic import Critic
from cohort.learn.optimizer import save_optimizer
from cohort.learn.reference import Reference
from cohort.policy.load import save_policy
from cohort.policy.policy import Policy
from cohort.record.files import new_directory
from cohort.record.rollouts import read_groups, write_groups
from cohort.types import Group, UserError

__all__ = ["Checkpoint", "latest_checkpoint", "prune", "readable", "restore_reference", "save_checkpoint"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk."""

    path: Path
    step: int
    state: Mapping[str, Any]

    def pending(self) -> list[Group]:
        """Groups that were sampled and not yet trained on."""
        file = self.path / "pending.parquet"
        return read_groups(file) if file.exists() else []


def save_checkpoint(
    directory: Path,
    step: int,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    pending: Sequence[Group] = (),
    reference: Reference | None = None,
    critic: Critic | None = None,
) -> Path:
    """Write `directory/step-000050`, whole or not at all."""
    path = directory / f"step-{step:06d}"
    with new_directory(path) as new:
        save_policy(policy, new)
        save_optimizer(optimizer, new)
        (new / "state.json").write_bytes(orjson.dumps({"step": step, **state}, option=orjson.OPT_INDENT_2))
        if pending:
            write_groups(new / "pending.parquet", pending, step)
        if reference is not None and reference.refreshed and reference.module is not None:
            reference.module.save_pretrained(new / "reference")  # type: ignore[operator]
        if critic is not None:
            critic.save(new / "critic")
    return path


def latest_checkpoint(directory: Path) -> Checkpoint | None:
    """The newest whole checkpoint, if there is any."""
    found = _whole(directory)
    if not found:
        return None
    with _damage(found[-1]):
        state = orjson.loads((found[-1] / "state.json").read_bytes())
        return Checkpoint(found[-1], state["step"], state)


def readable(checkpoint: Checkpoint | None) -> contextlib.AbstractContextManager[None]:
    """Around everything that reads a checkpoint: a damaged one is refused with a sentence."""
    return contextlib.nullcontext() if checkpoint is None else _damage(checkpoint.path)


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
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


def restore_reference(reference: Reference, path: Path) -> None:
    """Load the weights of a reference policy that had been refreshed before the checkpoint."""
    if reference.module is not None and (path / "reference").exists():
        saved = AutoModelForCausalLM.from_pretrained(path / "reference", dtype="auto")
        reference.module.load_state_dict(saved.state_dict())
        reference.refreshed = True
