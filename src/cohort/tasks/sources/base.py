"""What a source of prompts is: a function that takes the table which sets it. Yours is named `module:function`.

    def squares(table, held_out, seed):
        return [{"prompt": f"What is {i} * {i}?", "answer": str(i * i)} for i in range(1, 100)]

Then `source = "my_module:squares"` works in a recipe, and `open_task("my_module:squares", held_out=0.1)` in Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import model_validator

from cohort import settings
from cohort.settings.table import Text
from cohort.tasks.prompts import Prompts
from cohort.types import UserError

# The sources of Cohort and of the libraries that it works with, imported when asked for.
# A name, or what stands before the colon as in "reasoning_gym:chain_sum" -> "module:function" of a `SourceOfPrompts`.
SOURCES = {
    "word_problems": "cohort.tasks.embedded.word_problems:WORD_PROBLEMS.open",
    "arithmetic": "cohort.tasks.embedded.arithmetic:ARITHMETIC.open",
    "reasoning_gym": "cohort.integrations.reasoning_gym.source:open_gym",
    "verifiers": "cohort.integrations.verifiers.source:open_tasks",
}
# Those that also make completions to learn from -> a function of (table, seed) that returns them.
DEMONSTRATIONS = {
    "word_problems": "cohort.tasks.embedded.word_problems:WORD_PROBLEMS.demonstrations",
    "arithmetic": "cohort.tasks.embedded.arithmetic:ARITHMETIC.demonstrations",
}
# Those that also make pairs of a better and a worse completion -> a function of (table, held_out, seed): rows.
PAIRS = {
    "word_problems": "cohort.tasks.embedded.word_problems:WORD_PROBLEMS.pairs",
    "arithmetic": "cohort.tasks.embedded.arithmetic:ARITHMETIC.pairs",
}


class SourceOfPrompts(Protocol):
    """A source of prompts: a function of the table that sets it, of which side is asked for, and of the stage's seed.

    It returns rows (a list of dicts, a `datasets.Dataset`), whose columns the table names; or a list of `Prompt`; or
    `Found`, for prompts of a class of your own. In supervised and reward_model stages it returns rows.

    `held_out` is False for what is trained on. It is True for what evaluations ask: where the table says
    `held_out_split`, where another task names this source as its `held_out`, and always where `Found.prompts.size` is
    None, because prompts without an end cannot be split by a share. `table.args` is for settings of the source's own.
    """

    def __call__(self, table: settings.Prompts, held_out: bool, seed: int, /) -> Any: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Found:
    """The prompts of a source, the columns that they have, and which of these holds the question.

    `distinct`: a `limit` keeps the first so many different prompts, because those that are made may repeat.
    `environment` is the one, as `environment.use` names it, that must play them: their conversations do not end with
    the first reply.
    """

    prompts: Prompts
    columns: tuple[str, ...] = ("prompt", "answer")
    question: str = "prompt"
    distinct: bool = False
    environment: str | None = None


class FromPython(settings.Prompts):
    """The table of a source that Python opens: the source may be an object, and two settings are for Python alone.

    A setting that is None counts as not given, and steps may be numbers: `{1: 0.5, 2: 0.3}`.
    """

    source: Any
    held_out: Any = None
    revision: Text | None = None  # of a dataset of the hub
    answer_required: bool = False  # refuse rows without an answer, even where its column has the default name

    @model_validator(mode="before")
    @classmethod
    def _as_in_a_recipe(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        values = {key: value for key, value in given.items() if value is not None}
        for key in {"args", "careful", "weight"} & values.keys():
            if isinstance(values[key], Mapping):
                values[key] = {str(name): value for name, value in values[key].items()}
        return values


def built_in_name(source: Any) -> str | None:
    """The name in `SOURCES` that a source has; None for rows and for a source of one's own."""
    name = source.partition(":")[0] if isinstance(source, str) else ""
    return name if name in SOURCES else None


def needs_answer(table: settings.Prompts) -> bool:
    """Whether every row must have an answer. In a recipe it must where the recipe names the column."""
    return table.answer_required if isinstance(table, FromPython) else "answer" in table.model_fields_set


def has_no(table: settings.Prompts, *keys: str) -> None:
    """Refuse settings that the source of a table would not look at."""
    belong = {
        "levels": "levels belong to the source 'word_problems', 'arithmetic' or a reasoning_gym task",
        "args": 'args configure a reasoning_gym task, a verifiers package or a source of your own, "module:function"',
    }
    made = "is about demonstrations that the source 'word_problems' or 'arithmetic' makes"
    for key in keys:
        if getattr(table, key) != type(table).model_fields[key].default:
            raise UserError(f"{belong.get(key, f'{key} {made}')}; remove {key} for {table.source!r}.")
