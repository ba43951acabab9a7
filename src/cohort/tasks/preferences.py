"""Preference pairs: a prompt with a better and a worse answer, which is what a reward model learns from.

pairs = open_preferences("pairs.jsonl", held_out=0.1)
pairs.train[0].prompt, pairs.train[0].chosen, pairs.train[0].rejected

A row has a prompt (text or messages) and the answers in `chosen` and `rejected`: text, a list with the assistant's
message, or the whole conversation up to it. Without a prompt column both hold whole conversations, as messages or in
the "\\n\\nHuman: ... \\n\\nAssistant: ..." form of Anthropic's HH-RLHF, and what they share is the prompt.
"""

from __future__ import annotations

import math
import pkgutil
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any, cast

import numpy as np

from cohort import settings
from cohort.tasks.prompts import Items, Joined, Part, RowItems, question_share
from cohort.tasks.sources.base import PAIRS, built_in_name
from cohort.tasks.sources.columns import conversation, missing_column, read_question
from cohort.tasks.sources.files import kind
from cohort.tasks.sources.opening import both_sides, made_by, rows_of
from cohort.tasks.task import TaskFromPython
from cohort.types import Message, Prompt, UserError

_TURN = re.compile(r"\n\n(Human|Assistant):")


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two answers to a prompt. `chosen` should score higher than `rejected`, by `margin` at least."""

    prompt: Prompt
    chosen: str
    rejected: str
    margin: float


Pairs = RowItems[PreferencePair] | Part[PreferencePair]


@dataclass(frozen=True, slots=True)
class Preferences:
    """Pairs to train on, of which the last `replayed` are earlier ones, and pairs held out (None: there are none)."""

    train: Pairs
    held_out: Pairs | None
    replayed: int = 0


def open_preferences(source: Any, **fields: Any) -> Preferences:
    """Open a source of preference pairs. `fields` are the keys of a recipe's [task] table, `chosen` for example.

    `source` and `held_out` may also be a `datasets.Dataset` or a list of dicts.
    """
    return open_pairs(TaskFromPython(source=source, **fields))


def open_pairs(table: settings.Task, seed: int = 0) -> Preferences:
    """The pairs of a [task] table in a reward_model stage; `seed` is for a source of one's own.

    A share that is held out is split by a hash of the question, so that no question is on both sides. Raises UserError
    for whatever is wrong with the source and its first rows.
    """

    def read(one: settings.Prompts, held_out: bool) -> Items[PreferencePair]:
        name = built_in_name(one.source)
        if name and name not in PAIRS:
            raise UserError(f"{one.source} has questions and answers but no pairs of a better and a worse answer.")
        made = pkgutil.resolve_name(PAIRS[name])(one, held_out, seed) if name else made_by(one, held_out, seed)
        rows = rows_of(made, one, held_out)
        needed = {"chosen": table.chosen, "rejected": table.rejected, "margin": table.margin}
        if table.prompt != "prompt":  # the default may be missing: then the answers are whole conversations
            needed["prompt"] = table.prompt
        for what, name in needed.items():
            if name is not None and name not in rows.columns:
                raise missing_column(rows.place(0), what, name, rows.columns)
        return RowItems(rows, partial(_pair, table))

    train, held_out = both_sides(table, read, "pair", lambda pair: pair.prompt)
    return Preferences(cast(Pairs, train), cast(Pairs | None, held_out))


def open_with_history(table: settings.Task, preferences: settings.Preferences, seed: int) -> Preferences:
    """The pairs of a [task] table and, so that they are `replay` of all, as many earlier ones of the history as there
    are; which of them is drawn with `seed`. A question that is held out is so in the history, too.
    """
    new = open_pairs(table)
    if not preferences.history or not preferences.replay:
        return new
    share = table.held_out if isinstance(table.held_out, float) else 0.0
    whole = {"held_out": None, "held_out_split": None, "limit": None}
    old = Joined([open_pairs(table.model_copy(update={"source": of, **whole})).train for of in preferences.history])
    known = [index for index in range(old.size) if question_share(old[index].prompt) >= share]
    wanted = round(preferences.replay / (1 - preferences.replay) * new.train.size)
    drawn = np.random.default_rng(seed).permutation(np.asarray(known, np.int64))[:wanted]
    train = Joined([new.train, Part(old, np.sort(drawn))])
    return Preferences(Part(train, np.arange(train.size)), new.held_out, len(drawn))


def _pair(table: settings.Task, row: Mapping[str, Any], place: str) -> PreferencePair:
    """The pair in a row, or a UserError that names the place."""
    if row.get("tools"):
        raise UserError(f"{place} has tools in its column 'tools', and a reward model is not shown any: remove it.")
    chat, better = _answer(row.get(table.chosen), place, table.chosen)
    other, worse = _answer(row.get(table.rejected), place, table.rejected)
    if chat != other:
        raise UserError(
            f"{place}: {table.chosen!r} and {table.rejected!r} answer different conversations; they must differ in "
            "the last message only. Mend or remove the row."
        )
    if chat:
        prompt = Prompt.make(messages=chat)
    elif row.get(table.prompt) is not None:
        prompt = Prompt.make(*read_question(row, place, table.prompt, chat=False))
        if prompt.messages is not None and prompt.messages[-1]["role"] == "assistant":
            raise UserError(f"{place}: the conversation in {table.prompt!r} ends with the assistant's turn. Remove it.")
    else:
        chat, better, worse = _shared(better, worse, place, table)
        prompt = Prompt.make(messages=chat)
    if not better.strip():
        raise UserError(f"{place} has no text in {table.chosen!r}. Fill it in or remove the row.")
    margin = 0.0 if table.margin is None else row.get(table.margin)
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not (math.isfinite(margin) and margin >= 0):
        raise UserError(f"{place}: {table.margin!r} holds {kind(margin)}; a margin is a number of at least 0.")
    return PreferencePair(prompt, better, worse, float(margin))


def _answer(value: Any, place: str, column: str) -> tuple[Sequence[Message], str]:
    """The conversation before an answer (empty where the value is text or the answer alone), and the answer."""
    if isinstance(value, str):
        return (), value
    chat = conversation(value, place, column)
    if chat[-1]["role"] != "assistant":
        raise UserError(
            f"{place}: the last message of {column!r} is the {chat[-1]['role']}'s; it must be the assistant's answer. "
            "Mend or remove the row."
        )
    return chat[:-1], str(chat[-1]["content"])


def _shared(better: str, worse: str, place: str, table: settings.Task) -> tuple[Sequence[Message], str, str]:
    """(conversation, better answer, worse answer) of two texts that begin with the same conversation."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(better, worse)))
    turns = [turn for turn in _TURN.finditer(better) if turn.end() <= same]
    if not turns or turns[-1][1] != "Assistant" or not better.startswith("\n\nHuman:"):
        raise UserError(
            f"{place} has no {table.prompt!r}, and {table.chosen!r} and {table.rejected!r} do not begin with a "
            'conversation ("\\n\\nHuman: ... \\n\\nAssistant:") they share. Name the column in [task]: prompt = "...".'
        )
    _, *parts = _TURN.split(better[: turns[-1].start()])
    roles = {"Human": "user", "Assistant": "assistant"}
    chat = [{"role": roles[who], "content": said.strip()} for who, said in zip(parts[::2], parts[1::2])]
    start = turns[-1].end()
    return chat, better[start:].strip(), worse[start:].strip()
