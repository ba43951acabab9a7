"""The data of a stage, opened from its task table."""

from __future__ import annotations

from cohort.seeds import derive_seed
from cohort.settings import Stage
from cohort.tasks import Demonstrations, Task, open_examples, open_prompts
from cohort.types import UserError

__all__ = ["open_stage_demonstrations", "open_stage_task"]


def open_stage_task(stage: Stage, seed: int) -> Task:
    """The prompts of a stage."""
    return open_prompts(stage.task, derive_seed(seed, "task"))


def open_stage_demonstrations(stage: Stage, seed: int) -> Demonstrations:
    """The examples of a supervised stage."""
    examples = open_examples(stage.task, derive_seed(seed, "task"))
    wanted = stage.supervised.examples_per_step
    if examples.size is not None and examples.size < wanted:
        raise UserError(
            f"the task has {examples.size} demonstrations, fewer than one step takes (supervised.examples_per_step = "
            f"{wanted}). Lower examples_per_step to {examples.size} or less, or bring more."
        )
    return examples
