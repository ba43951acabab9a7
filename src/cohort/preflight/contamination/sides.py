"""The two sides: the prompts that a stage trains on, and a benchmark, which is what it holds out or a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from cohort.preflight.contamination.layers import SHORT
from cohort.preflight.contamination.looking import EVERY, look
from cohort.preflight.contamination.report import Report
from cohort.preflight.contamination.texts import Question
from cohort.tasks.guess import guess_source
from cohort.tasks.order.mixture import Mixture
from cohort.tasks.prompts import Items, Part, place_of
from cohort.tasks.sources.opening import open_source
from cohort.tasks.task import Task, TaskFromPython
from cohort.types import Prompt, UserError

HELD_OUT = "held-out"


@dataclass(frozen=True, slots=True)
class Side:
    """Things with a prompt in each, of which the first `size` are read."""

    name: str
    items: Items[Any]
    size: int
    prompt_of: Callable[[Any], Prompt] = lambda prompt: prompt

    def questions(self) -> Iterator[Question]:
        """Its questions, each read when it is asked for."""
        for index in range(self.size):
            prompt = self.prompt_of(self.items[index])
            place = place_of(self.items, index, self.name)
            yield Question(prompt.id, place, prompt.question, None if prompt.answer is None else str(prompt.answer))


def trained_on(task: Task) -> list[Side]:
    """The training prompts of every source of a task that has an end; what is made without end cannot be read."""
    return [Side(one.name or "prompt", one.train, one.train.size) for one in task.sources if one.train.size is not None]


def held_out(task: Task, made: int) -> list[Question]:
    """The held-out questions of a task; of those that are made without end the first `made`."""
    if task.held_out is None:
        return []
    size = made if task.held_out.size is None else task.held_out.size
    return list(Side("held-out prompt", task.held_out, size).questions())


def look_in(
    name: str,
    benchmark: Sequence[Question],
    sides: Sequence[Side],
    layers: Collection[str] = EVERY,
    at_most: int | None = None,
) -> Report:
    """Which questions of a benchmark are in the first prompts of all sides together."""
    total = sum(side.size for side in sides)
    some = islice(chain.from_iterable(side.questions() for side in sides), at_most)
    report = look(name, benchmark, some, total, layers)
    if at_most is None or total <= at_most:
        return report
    return replace(report, not_looked={"prompts": f"those behind the first {at_most:,} of {total:,}"})


def without(sides: Sequence[Side], benchmark: Sequence[Question]) -> tuple[list[Items[Any]], Report]:
    """The things of every side but those whose prompts hold a question of the benchmark, and what was found. Raises
    `UserError` where none would be left.
    """
    report = look_in(HELD_OUT, benchmark, sides, SHORT)
    if len(report.found_in) == report.prompts:
        raise UserError(
            'task.decontaminate = "drop" would leave no training prompt: each holds a held-out question. Hold out '
            "others, or bring more prompts."
        )
    kept = np.ones(report.prompts, bool)
    kept[report.found_in] = False
    parts = np.split(kept, np.cumsum([side.size for side in sides])[:-1])
    return [Part(side.items, np.flatnonzero(own)) for side, own in zip(sides, parts, strict=True)], report


def without_held_out(task: Task, made: int) -> tuple[Task, Report | None]:
    """A task without the training prompts that hold a held-out question, and what was found. None: nothing is held out,
    or all training prompts are made without end.
    """
    sides, benchmark = trained_on(task), held_out(task, made)
    if not sides or not benchmark:
        return task, None
    parts, report = without(sides, benchmark)
    left = iter(parts)
    sources = tuple(one if one.train.size is None else replace(one, train=next(left)) for one in task.sources)
    train = Mixture(sources) if isinstance(task.train, Mixture) else sources[0].train
    return replace(task, sources=sources, train=train), report


def benchmark_of(given: str) -> list[Question]:
    """The questions of `FILE`, or of `FILE:question=COLUMN,answer=COLUMN`, where FILE is what task.source may be. Which
    columns these are is otherwise seen by their names. Raises `UserError` for whatever cannot be read.
    """
    source, named = _named(given)
    split = "train" if Path(source).expanduser().is_file() else "test"
    try:
        found = guess_source(source, split, None, named).task
        task = {
            key: column for key, column in found.items() if key in ("prompt", "messages", "answer", "answer_format")
        }
        if "completion" in found:  # a demonstration is an answer, too
            task.setdefault("answer", found["completion"])
        table = TaskFromPython(source=source, **{**task, **named})
        prompts = open_source(table, 0, 0, held_out_side=split == "test").train
    except UserError as error:
        said = re.sub(r'(task\.)?prompt = "\.\.\."', f"--against {source}:question=COLUMN", str(error))
        raise UserError(f"--against {given}: {said}") from None
    if prompts.size is None:
        raise UserError(f"--against {given}: it makes problems without end. Give a file or a dataset.")
    return list(Side("question", prompts, prompts.size).questions())


def _named(given: str) -> tuple[str, dict[str, str]]:
    """The file, and the columns that are named behind it, as keys of a task table."""
    source, colon, behind = given.rpartition(":")
    if not colon or "=" not in behind or Path(given).expanduser().exists():
        return given, {}
    if not re.fullmatch(r"(question|answer)=[^=,]+(,(question|answer)=[^=,]+)?", behind) or not source:
        raise UserError(f"--against {given}: behind FILE: stands question=COLUMN, answer=COLUMN, or both with a comma.")
    pairs = (pair.split("=") for pair in behind.split(","))
    return source, {"prompt" if key == "question" else key: column for key, column in pairs}
