"""One problem of reasoning-gym, determined by (task, configuration, seed)."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import json
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from cohort.integrations.library import require
from cohort.integrations.reasoning_gym.admitted import gate_version
from cohort.types import UserError
from cohort.wording import nearest

__all__ = ["configuration", "make", "require_library"]

# These tasks have many right answers and give none as the answer; the gold one is among the metadata.
GOLD_IN_METADATA = {
    "graph_color": lambda metadata: json.dumps({str(k): v for k, v in metadata["possible_answer"].items()}),
    "rubiks_cube": lambda metadata: metadata["example_correct_answer"],
}
OURS = {"seed": "every problem has its own seed", "size": "write limit = N for the first N different problems"}


@cache
def require_library() -> None:
    """Raise UserError unless reasoning-gym is here in the version that the gate looked at."""
    require("reasoning_gym", "reasoning-gym", gate_version(), "its scorers were tried at")


def configuration(task: str, level: int | None, args: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a task's configuration that are not its defaults, as plain values: those of a level, then `args`.

    Level n sets every attribute of the task's curriculum to its n-th value, or to its last one. Raises UserError for a
    field that the task does not have, and for a value that it does not take.
    """
    from reasoning_gym.coaching.base_curriculum import DefaultCurriculumContext, RangeAttributeMode
    from reasoning_gym.factory import DATASETS, create_curriculum, create_dataset

    made = DATASETS[task][1]
    defaults = {field.name: field for field in dataclasses.fields(made) if field.init}
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
            dataset.seed, dataset.config = seed, dataclasses.replace(dataset.config, seed=seed)
        else:
            dataset = _dataset.__wrapped__(task, json.dumps(config), seed)
        entry = dataset[0]
    gold = GOLD_IN_METADATA[task](entry["metadata"]) if task in GOLD_IN_METADATA else entry["answer"]
    return str(entry["question"]), str(gold)


@lru_cache(maxsize=64)
def _dataset(task: str, config: str, seed: int = 0) -> Any:
    from reasoning_gym.factory import create_dataset

    return create_dataset(task, **json.loads(config), seed=seed, size=1)
