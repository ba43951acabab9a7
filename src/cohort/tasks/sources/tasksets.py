"""The tasks of a verifiers package as a source of prompts."""

from __future__ import annotations

from cohort import settings
from cohort.adapters.verifiers import COLUMN, open_taskset, taskset_of
from cohort.tasks.prompts import ItemList
from cohort.tasks.sources.base import Found, has_no
from cohort.types import UserError

__all__ = ["open_tasks"]


def open_tasks(table: settings.Prompts, held_out: bool, seed: int) -> Found:
    """The tasks of "verifiers:PACKAGE", on either side the same: a package has no other split."""
    has_no(table, "levels")
    package = taskset_of(table.source)
    if package is None:
        raise UserError(f'{table.source!r} is not of the form "verifiers:PACKAGE".')
    if table.held_out_split is not None or table.held_out == table.source:
        raise UserError(f"{table.source!r} has no other split: hold out a share of its tasks, such as held_out = 0.1.")
    prompts = open_taskset(package, table.args, table.limit)
    answered = all(prompt.answer is not None for prompt in prompts)
    return Found(ItemList(prompts), ("prompt", "answer", COLUMN) if answered else ("prompt", COLUMN))
