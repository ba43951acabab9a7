"""From what a recipe says of one source to its training and held-out prompts, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

import numpy as np

from cohort.tasks.adaptive import Adaptive
from cohort.tasks.arithmetic import ARITHMETIC, Arithmetic
from cohort.tasks.arithmetic import LEVELS as ARITHMETIC_LEVELS
from cohort.tasks.columns import AnswerFormat, ColumnMap, check_text
from cohort.tasks.curriculum import Curriculum
from cohort.tasks.distinct import Distinct
from cohort.tasks.foreign import gym_task, open_gym, open_taskset, taskset_of
from cohort.tasks.mixture import Source, read_weights
from cohort.tasks.prompts import LeveledPrompts, Part, PromptList, Prompts, RowPrompts, question_share
from cohort.tasks.sources import WORD_PROBLEMS, open_rows
from cohort.tasks.word_problems import LEVELS, WordProblems
from cohort.types import Prompt, UserError

__all__ = ["first", "open_source"]

CHECKED = 20_000  # rows read when a task is opened, so that a bad one is found before a model loads
WORD_COLUMNS = ("prompt", "answer", "level", "steps", "reasoning", "split")

Maker = Callable[[Literal["train", "held_out"], int], LeveledPrompts]  # (split, seed) -> prompts without an end


def open_source(
    source: Any,
    *,
    name: str = "",
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
    levels: Sequence[int] | None = None,
    args: Mapping[str, Any] | None = None,
    limit: int | None = None,
    weight: float | Mapping[Any, float] = 1.0,
    curriculum: Curriculum | None = None,
    adaptive: Adaptive | None = None,
    seed: int = 0,
    held_out_seed: int | None = None,
) -> Source:
    """Open one source; the arguments are those of `cohort.tasks.open_task`, and its name and weight in a mixture."""
    if answer_format not in ("plain", "gsm8k"):
        raise UserError(f'answer_format is "plain" or "gsm8k", not {answer_format!r}.')
    if limit is not None and limit < 1:
        raise UserError(f"limit is the number of training prompts to keep, at least 1, not {limit}.")
    columns = ColumnMap(prompt, answer, messages, answer_format, answer_required)
    held_out_seed = seed if held_out_seed is None else held_out_seed

    make = maker(source, levels, args, curriculum is not None)
    taskset = taskset_of(source)
    train: Prompts
    names: tuple[str, ...]
    if taskset is not None:
        if held_out_split is not None or held_out == source:
            raise UserError(f"{source!r} has no other split: hold out a share of its tasks, such as held_out = 0.1.")
        train, names = open_taskset(taskset, args or {}, limit)
    elif make is not None:
        train = make("train", seed)
        names = getattr(train, "columns", WORD_COLUMNS)
    else:
        train, names = open_prompts(source, columns, split, config, revision)

    environment: str | None = getattr(train, "environment", None)
    kept_out: Prompts | None = None
    if is_share(held_out):
        if train.size is None:
            raise UserError(f"{source} holds out its own problems; remove held_out = {held_out}.")
        train, kept_out = split_by_hash(train, float(held_out))
    elif held_out is not None:
        other = make if held_out == source else maker(held_out, None, None, False)
        if other is not None:
            kept_out = other("held_out", held_out_seed)
        else:
            same = (config, revision) if isinstance(source, str) and held_out == source else (None, None)
            kept_out, _ = open_prompts(held_out, columns, held_out_split or "test", *same)
    elif held_out_split is not None:
        kept_out, _ = open_prompts(source, columns, held_out_split, config, revision)
    elif make is not None:
        kept_out = make("held_out", held_out_seed)

    if limit is not None:
        train = limited(train, limit, source)
    check_order(source, train, curriculum, adaptive)
    question, weights = columns.question if make is None else "prompt", read_weights(name, weight)
    return Source(
        name, train, kept_out, names, question, answer, weights, curriculum, adaptive, is_share(held_out), environment
    )


def maker(source: Any, levels: Sequence[int] | None, args: Mapping[str, Any] | None, all_levels: bool) -> Maker | None:
    """What makes the prompts of a source that has no end; None for rows. `all_levels`: unless `levels` says which."""
    task = gym_task(source)
    if args and task is None and not taskset_of(source):
        raise UserError(f"args configure a reasoning_gym task or a verifiers package; remove them for {source!r}.")
    if task is not None:
        maker_of_task: Maker = open_gym(task, levels, args, all_levels)
        return maker_of_task
    if isinstance(source, str) and source == WORD_PROBLEMS:
        chosen = levels or (tuple(LEVELS) if all_levels else (1, 2))
        return lambda split, seed: WordProblems(chosen, seed, split)
    if isinstance(source, str) and source == ARITHMETIC:
        of_arithmetic = levels or (tuple(ARITHMETIC_LEVELS) if all_levels else (1, 2))
        return lambda split, seed: Arithmetic(of_arithmetic, seed, split)
    if levels is not None:
        raise UserError(
            f"levels belong to the source {WORD_PROBLEMS!r}, {ARITHMETIC!r} or a reasoning_gym task; remove levels for "
            f"{source!r}."
        )
    return None


def open_prompts(
    source: Any, columns: ColumnMap, split: str, config: str | None, revision: str | None
) -> tuple[Prompts, tuple[str, ...]]:
    """The prompts of one source with rows, checked, and its column names."""
    if (taskset := taskset_of(source)) is not None:
        found: tuple[Prompts, tuple[str, ...]] = open_taskset(taskset, {})
        return found
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


def limited(train: Prompts, limit: int, source: Any) -> Prompts:
    """The first `limit` prompts; the first different ones of a source that makes the same problem again and again."""
    if getattr(train, "repeats", False):
        return Distinct(train, limit, str(source))
    return Part(train, np.arange(limit if train.size is None else min(limit, train.size), dtype=np.int64))


def check_order(source: Any, train: Prompts, curriculum: Curriculum | None, adaptive: Adaptive | None) -> None:
    """Refuse a curriculum or adaptive sampling where it has nothing to work on."""
    levels = getattr(train, "levels", None) if train.size is None else None
    if curriculum is not None and levels is None:
        limits = hasattr(train, "whole")
        why = "limit makes a fixed list of prompts; remove it" if limits else "this source has none; remove it"
        raise UserError(
            f"a curriculum goes through the levels of {WORD_PROBLEMS}, {ARITHMETIC} or a reasoning_gym task; "
            f"{source!r} cannot have one: {why}."
        )
    if curriculum is not None and len(levels or ()) < 2:
        raise UserError(f"a curriculum needs two levels or more to go through; {source!r} has {list(levels or ())}.")
    if adaptive is not None and train.size is None:
        raise UserError(
            f"adaptive sampling needs prompts that come again, and {source!r} has no end: keep the first N with "
            "limit = N, or use a curriculum."
        )


def first(prompts: Prompts, count: int) -> Any:
    """The first prompts of a sequence that has an end."""
    assert prompts.size is not None
    return islice((prompts[i] for i in range(prompts.size)), count)
