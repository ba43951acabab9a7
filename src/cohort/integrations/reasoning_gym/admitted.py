"""Which tasks of reasoning-gym may be trained on, and how their answers are judged.

`admitted.json` is written by `tools/reasoning_gym_gate.py`, which shows every task's scorer gold answers and hostile
ones. It holds for one version of the library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cohort.types import UserError
from cohort.wording import nearest

__all__ = ["Admitted", "admission", "admitted_tasks", "gate_version", "refused_tasks"]

FILE = Path(__file__).with_name("admitted.json")


@dataclass(frozen=True, slots=True)
class Admitted:
    """A task that survived the gate. `scoring` and `form` are explained in `cohort.integrations.reasoning_gym.reward`.

    `levels` is how many levels of its curriculum can be used, `constant` the best mean score of one answer given to
    every problem, `reuse` whether one dataset can be set to another seed.
    """

    scoring: str
    levels: int
    constant: float
    reuse: bool = True
    form: str | None = None


@cache
def _file() -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def gate_version() -> str:
    """The version of reasoning-gym that the gate looked at."""
    return str(_file()["reasoning_gym"])


@cache
def admitted_tasks() -> Mapping[str, Admitted]:
    """The tasks that may be used, by name."""
    return {name: Admitted(**facts) for name, facts in _file()["admitted"].items()}


def refused_tasks() -> Mapping[str, str]:
    """The tasks that may not, each with the reason."""
    reasons: Mapping[str, str] = _file()["refused"]
    return reasons


def admission(task: str) -> Admitted:
    """What the gate found of a task. Raises UserError for one that does not exist or was refused."""
    known = admitted_tasks()
    if task in known:
        return known[task]
    if task in refused_tasks():
        raise UserError(f"the reasoning-gym task {task!r} cannot be trained on: {refused_tasks()[task]}.")
    close = nearest(task, known)
    hint = f"Did you mean {close!r}?" if close else "docs/tasks/reasoning_gym.md lists them."
    raise UserError(f"reasoning-gym has no task {task!r}, or it is newer than {gate_version()}. {hint}")
