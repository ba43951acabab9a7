"""A task: prompts to train on, prompts held out, and how they are shown to the model.

task = open_task("train.jsonl", prompt="question", answer="answer", held_out=0.1)
task.train[0], task.held_out.size
rendered = task.renderer(tokenizer).render(task.train[0])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from cohort.tasks.columns import AnswerFormat, ColumnMap, check_text
from cohort.tasks.prompts import Part, PromptList, Prompts, RowPrompts, question_share
from cohort.tasks.render import TEMPLATES, Renderer, Template
from cohort.tasks.sources import WORD_PROBLEMS, open_rows
from cohort.tasks.word_problems import WordProblems
from cohort.types import Prompt, UserError

__all__ = ["Task", "open_task"]

CHECKED = 20_000  # rows read when a task is opened, so that a bad one is found before a model loads
WORD_COLUMNS = ("prompt", "answer", "level", "steps", "reasoning", "split")


@dataclass(frozen=True, slots=True)
class Task:
    """Prompts to train on and prompts held out (None: there are none), and the template that shows them."""

    train: Prompts
    held_out: Prompts | None
    columns: tuple[str, ...]
    template: Template = "chat"
    system: str | None = None
    split_by_hash: bool = False  # one question is then never on both sides

    def renderer(self, tokenizer: Any) -> Renderer:
        """The renderer of this task's template for a tokenizer."""
        return Renderer(tokenizer, self.template, self.system)

    def overlap(self, at_most: int = 100_000) -> int:
        """How many held-out questions are also trained on (looking at no more than `at_most` of each)."""
        if self.held_out is None or self.train.size is None or self.held_out.size is None or self.split_by_hash:
            return 0
        trained = {question_share(prompt) for prompt in first(self.train, at_most)}
        return sum(question_share(prompt) in trained for prompt in first(self.held_out, at_most))


def open_task(
    source: Any,
    *,
    prompt: str = "prompt",
    answer: str = "answer",
    held_out: Any = None,
    messages: str | None = None,
    split: str = "train",
    held_out_split: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    answer_format: AnswerFormat = "plain",
    answer_required: bool = False,
    system: str | None = None,
    template: Template = "chat",
    levels: Sequence[int] | None = None,
    seed: int = 0,
    limit: int | None = None,
) -> Task:
    """Open a source as a task.

    `source`: "word_problems", a file, a directory, a hub id, a `datasets.Dataset`, a list of dicts or of Prompts.
    `prompt` and `answer` name columns; all others become tags. A prompt may be text or a list of messages.
    `held_out`: another source, or a share of this one (split by a hash of the question, the same in every run);
    `held_out_split`: another split, of the held-out source if there is one ("test" by default) or else of this one.
    `levels` and `seed` are for word problems. `limit` keeps the first so many training prompts.
    """
    check_choices(template, answer_format, limit)
    columns = ColumnMap(prompt, answer, messages, answer_format, answer_required)

    if isinstance(source, str) and source == WORD_PROBLEMS:
        train: Prompts = WordProblems(levels or (1, 2), seed, "train")
        names: tuple[str, ...] = WORD_COLUMNS
    else:
        if levels is not None:
            raise UserError(f"levels belong to the source {WORD_PROBLEMS!r}; remove levels for {source!r}.")
        train, names = open_prompts(source, columns, split, config, revision)

    kept_out: Prompts | None = None
    if is_share(held_out):
        if train.size is None:
            raise UserError(f"{WORD_PROBLEMS} holds out its own problems; remove held_out = {held_out}.")
        train, kept_out = split_by_hash(train, float(held_out))
    elif held_out is not None:
        if isinstance(held_out, str) and held_out == WORD_PROBLEMS:
            kept_out = WordProblems(levels or (1, 2), seed, "held_out")
        else:
            same = (config, revision) if isinstance(source, str) and held_out == source else (None, None)
            kept_out, _ = open_prompts(held_out, columns, held_out_split or "test", *same)
    elif held_out_split is not None:
        kept_out, _ = open_prompts(source, columns, held_out_split, config, revision)
    elif train.size is None:
        kept_out = WordProblems(levels or (1, 2), seed, "held_out")

    if limit is not None:
        count = limit if train.size is None else min(limit, train.size)
        train = Part(train, np.arange(count, dtype=np.int64))
    return Task(train, kept_out, names, template, system, is_share(held_out))


def open_prompts(
    source: Any, columns: ColumnMap, split: str, config: str | None, revision: str | None
) -> tuple[Prompts, tuple[str, ...]]:
    """The prompts of one source, checked, and its column names."""
    if isinstance(source, Sequence) and not isinstance(source, str) and len(source) and isinstance(source[0], Prompt):
        for number, prompt in enumerate(source[:CHECKED], start=1):
            check_text({"text": prompt.text, "messages": prompt.messages}, f"prompt {number}")
        tags = dict.fromkeys(tag for prompt in source for tag in prompt.tags)
        return PromptList(source), ("prompt", "answer", *tags)
    rows = open_rows(source, split, config, revision)
    prompts = RowPrompts(rows, columns.settle(rows))
    for _ in first(prompts, CHECKED):
        pass  # reading a row checks it
    return prompts, rows.columns


def split_by_hash(prompts: Prompts, share: float) -> tuple[Part, Part]:
    """Training and held-out prompts. The same question is always on the same side, however often it occurs."""
    assert prompts.size is not None
    shares = np.fromiter((question_share(prompts[i]) for i in range(prompts.size)), np.float64, prompts.size)
    held_out = shares < share
    if held_out.all() or not held_out.any():
        side = "no training prompt" if held_out.all() else "no held-out prompt"
        raise UserError(
            f"held_out = {share:g} of {prompts.size} prompts leaves {side}. "
            "Choose another share, or name a held-out file."
        )
    return Part(prompts, np.flatnonzero(~held_out)), Part(prompts, np.flatnonzero(held_out))


def is_share(value: Any) -> bool:
    """True for a number between 0 and 1. Another number is a mistake that is named here."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if not 0 < value < 1:
        raise UserError(f"held_out is a share between 0 and 1, a file or another source, not {value}.")
    return True


def first(prompts: Prompts, count: int) -> Any:
    """The first prompts of a sequence that has an end."""
    assert prompts.size is not None
    return islice((prompts[i] for i in range(prompts.size)), count)


def check_choices(template: str, answer_format: str, limit: int | None) -> None:
    """Refuse a word or a number that is not one of the choices."""
    if template not in TEMPLATES:
        raise UserError(f"template is one of {', '.join(TEMPLATES)}, not {template!r}.")
    if answer_format not in ("plain", "gsm8k"):
        raise UserError(f'answer_format is "plain" or "gsm8k", not {answer_format!r}.')
    if limit is not None and limit < 1:
        raise UserError(f"limit is the number of training prompts to keep, at least 1, not {limit}.")
