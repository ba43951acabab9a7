"""The data of a stage, opened from its task table."""

from __future__ import annotations

from typing import Any

from cohort.seeds import derive_seed
from cohort.settings import Prompts as PromptsTable
from cohort.settings import Stage
from cohort.tasks import Adaptive, Curriculum, Demonstrations, Task, open_demonstrations, open_mixture, open_task
from cohort.types import UserError

__all__ = ["open_stage_demonstrations", "open_stage_task"]


def open_stage_task(stage: Stage, seed: int) -> Task:
    """The prompts of a stage."""
    t = stage.task
    # Made problems are held out with the same seed in every run, so that runs can be compared.
    common: dict[str, Any] = {
        "system": t.system,
        "template": t.template,
        "seed": derive_seed(seed, "task"),
        "held_out_seed": 0,
    }
    if t.mixture:
        sources = {name: {**_prompts(table), "weight": table.weight} for name, table in t.mixture.items()}
        return open_mixture(sources, **common)
    return open_task(**_prompts(t), **common)


def _prompts(table: PromptsTable) -> dict[str, Any]:
    """What a table says of one source of prompts, as `open_task` takes it."""
    names = ("source", "prompt", "answer", "messages", "split", "held_out", "held_out_split", "config")
    given = {name: getattr(table, name) for name in (*names, "answer_format", "levels", "args", "limit")}
    return given | {
        "answer_required": "answer" in table.model_fields_set,
        "curriculum": None if table.curriculum is None else Curriculum(**table.curriculum.model_dump()),
        "adaptive": None if table.adaptive is None else Adaptive(**table.adaptive.model_dump()),
    }


def open_stage_demonstrations(stage: Stage, seed: int) -> Demonstrations:
    """The examples of a supervised stage."""
    t = stage.task
    careful = {int(steps): share for steps, share in t.careful.items()} if isinstance(t.careful, dict) else t.careful
    examples = open_demonstrations(
        t.source,
        prompt=t.prompt,
        completion=t.completion,
        messages=t.messages,
        split=t.split,
        config=t.config,
        levels=t.levels,
        seed=derive_seed(seed, "task"),
        careful=careful,
        sloppy_right=t.sloppy_right,
        careful_first=t.careful_first,
        limit=t.limit,
    )
    wanted = stage.supervised.examples_per_step
    if examples.size is not None and examples.size < wanted:
        raise UserError(
            f"the task has {examples.size} demonstrations, fewer than one step takes (supervised.examples_per_step = "
            f"{wanted}). Lower examples_per_step to {examples.size} or less, or bring more."
        )
    return examples
