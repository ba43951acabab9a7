"""The tasks of reasoning-gym that may be trained on; one problem of them, determined by (task, configuration, seed).

`admitted.json` says how their answers are judged. It is written by `tools/reasoning_gym_gate.py`, which shows every
task's scorer gold answers and hostile ones, and holds for one version of the library.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from cohort.integrations import require
from cohort.types import UserError
from cohort.wording import nearest

__all__ = [
    "FILE",
    "Admitted",
    "admission",
    "admitted_tasks",
    "configuration",
    "make",
    "refused_tasks",
    "require_library",
]

FILE = Path(__file__).with_name("admitted.json")
# These tasks have many right answers and give none as the answer; the gold one is among the metadata.
GOLD_IN_METADATA = {
    "graph_color": lambda metadata: json.dumps({str(k): v for k, v in metadata["possible_answer"].items()}),
    "rubiks_cube": lambda metadata: metadata["example_correct_answer"],
}
OURS = {"seed": "every problem has its own seed", "size": "write limit = N for the first N different problems"}


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
    known, refused = admitted_tasks(), refused_tasks()
    if task in known:
        return known[task]
    if task in refused:
        raise UserError(f"the reasoning-gym task {task!r} cannot be trained on: {refused[task]}.")
    close = nearest(task, known)
    hint = f"Did you mean {close!r}?" if close else "docs/tasks/reasoning_gym.md lists them."
    raise UserError(f"reasoning-gym has no task {task!r}, or it is newer than {_file()['reasoning_gym']}. {hint}")


@cache
def require_library() -> None:
    """Raise UserError unless reasoning-gym is here in the version that the gate looked at."""
    require("reasoning_gym", "reasoning-gym", _file()["reasoning_gym"], "its scorers were tried at")


def configuration(task: str, level: int | None, args: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a task's configuration that are not its defaults, as plain values: those of a level, then `args`.

    Level n sets every attribute of the task's curriculum to its n-th value, or to its last one. Raises UserError for a
    field that the task does not have, and for a value that it does not take.
    """
    from reasoning_gym.coaching.base_curriculum import DefaultCurriculumContext, RangeAttributeMode
    from reasoning_gym.factory import DATASETS, create_curriculum, create_dataset

    made = DATASETS[task][1]
    defaults = {field.name: field for field in fields(made) if field.init}
    for name in args:
        if name not in defaults or name in OURS:
            raise UserError(f"reasoning-gym's {task} takes no argument {name!r}. {_instead(name, defaults)}")
    chosen: dict[str, Any] = {}
    try:
        if level is not None:
            curriculum = create_curriculum(task)
            for name, attribute in curriculum.attributes.items():
                curriculum.set_attr_level(name, min(level, len(attribute.levels)) - 1)
            # The library's default mode would mix in all easier levels.
            top = curriculum.generate_configuration(context=DefaultCurriculumContext(RangeAttributeMode.UPPER_BOUND))
            chosen = {name: getattr(top, name) for name in defaults if name not in OURS}
            plain = made()
            chosen = {name: value for name, value in chosen.items() if value != getattr(plain, name)}
        chosen |= args
        create_dataset(task, **chosen, size=1, seed=0)  # which checks the values
    except (AssertionError, TypeError, ValueError) as error:
        raise UserError(
            f"reasoning-gym's {task} does not take {dict(args)!r}: {error or type(error).__name__}."
        ) from None
    found: dict[str, Any] = json.loads(json.dumps(chosen))
    return found


def _instead(name: str, fields: Mapping[str, Any]) -> str:
    if name in OURS:
        return f"Leave it out: {OURS[name]}."
    ours = [field for field in fields if field not in OURS]
    close = nearest(name, ours)
    return f"Did you mean {close!r}?" if close else f"It takes {', '.join(ours) or 'none'}."


def make(task: str, config: Mapping[str, Any], seed: int, reuse: bool) -> tuple[str, str]:
    """The question and the gold answer of one problem.

    Always number 0 of a dataset, because reasoning-gym adds the number to the seed: number 1 of seed 0 is number 0 of
    seed 1. With `reuse` the dataset is set to another seed and not made anew, which for some tasks means reading files.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # some generators print
        if reuse:
            dataset = copy.copy(_dataset(task, json.dumps(config)))
            dataset.seed, dataset.config = seed, replace(dataset.config, seed=seed)
        else:
            dataset = _dataset.__wrapped__(task, json.dumps(config), seed)
        entry = dataset[0]
    gold = GOLD_IN_METADATA[task](entry["metadata"]) if task in GOLD_IN_METADATA else entry["answer"]
    return str(entry["question"]), str(gold)


@lru_cache(maxsize=64)
def _dataset(task: str, config: str, seed: int = 0) -> Any:
    from reasoning_gym.factory import create_dataset

    return create_dataset(task, **json.loads(config), seed=seed, size=1)
