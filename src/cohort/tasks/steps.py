"""Solutions in steps, each with a label: what a process reward model learns from.

A row has a `prompt` (text or messages), `completions`, the steps as a list of texts, and `labels`, each of them true or
false, or a number from 0 to 1: the form of TRL's stepwise supervision. A `reject` stage with a reward that scores
steps writes such rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from cohort import settings
from cohort.tasks.prompts import Items, RowItems
from cohort.tasks.sources.base import built_in_name
from cohort.tasks.sources.columns import missing_column, read_question
from cohort.tasks.sources.opening import both_sides, made_by, rows_of
from cohort.types import Prompt, UserError

COLUMNS = ("completions", "labels")


@dataclass(frozen=True, slots=True)
class Solution:
    """The steps of a completion, and how right each of them is, from 0 to 1."""

    prompt: Prompt
    steps: tuple[str, ...]
    labels: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Solutions:
    """Solutions to train on and solutions held out (None: there are none)."""

    train: Items[Solution]
    held_out: Items[Solution] | None


def open_solutions(table: settings.Task, seed: int = 0) -> Solutions:
    """The solutions of a [task] table; `seed` is for a source of one's own. A share that is held out is split by a hash
    of the question. Raises UserError for whatever is wrong with the source and its first rows.
    """

    def read(one: settings.Prompts, held_out: bool) -> Items[Solution]:
        if built_in_name(one.source):
            raise UserError(f"{one.source} has questions and answers but no solutions whose steps have labels.")
        rows = rows_of(made_by(one, held_out, seed), one, held_out)
        if table.prompt not in rows.columns:
            raise missing_column(rows.place(0), "prompt", table.prompt, rows.columns)
        if missing := [what for what in COLUMNS if what not in rows.columns]:
            raise UserError(
                f"{rows.place(0)} has no column {missing[0]!r}; it has {', '.join(map(repr, rows.columns))}. Solutions "
                "have 'completions', a list of steps, and 'labels', one for each step: call the columns so."
            )
        return RowItems(rows, partial(_solution, table.prompt))

    return Solutions(*both_sides(table, read, "solution", lambda one: one.prompt))


def _solution(question: str, row: Mapping[str, Any], place: str) -> Solution:
    """The solution in a row, or a UserError that names the place."""
    steps, labels = (row.get(name) for name in COLUMNS)
    if not isinstance(steps, list | tuple) or not steps or not all(isinstance(s, str) and s.strip() for s in steps):
        raise UserError(f"{place}: 'completions' must be a list of steps, each a text. Mend or remove the row.")
    known = labels if isinstance(labels, list | tuple) and len(labels) == len(steps) else [None]
    if not all(isinstance(one, bool | int | float) and 0 <= one <= 1 for one in known):
        raise UserError(
            f"{place}: 'labels' must be {len(steps)} values, one for each step: true or false, or a number from 0 to "
            "1. Mend or remove the row."
        )
    prompt = Prompt.make(*read_question(row, place, question, chat=False))
    return Solution(prompt, tuple(steps), tuple(map(float, known)))
