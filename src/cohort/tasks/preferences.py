"""Preference pairs: a prompt with a better and a worse answer, which is what a reward model learns from.

pairs = open_preferences("pairs.jsonl", held_out=0.1)
pairs.train[0].prompt, pairs.train[0].chosen, pairs.train[0].rejected

A row has a prompt (text or messages) and the answers in `chosen` and `rejected`: text, a list with the assistant's
message, or the whole conversation up to it. Without a prompt column both hold whole conversations, as messages or in
the "\\n\\nHuman: ... \\n\\nAssistant: ..." form of Anthropic's HH-RLHF, and what they share is the prompt.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Protocol

import numpy as np

from cohort.tasks.columns import ColumnMap, check_text, conversation, missing_column
from cohort.tasks.files import kind
from cohort.tasks.prompts import question_share
from cohort.tasks.sources import Rows, open_rows
from cohort.types import Message, Prompt, UserError

__all__ = ["Pairs", "PreferencePair", "Preferences", "open_preferences"]

CHECKED = 20_000  # rows read when a source is opened, so that a bad one is found before a model loads
_TURN = re.compile(r"\n\n(Human|Assistant):")


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two answers to a prompt. `margin` is by how much `chosen` should score higher, at least."""

    prompt: Prompt
    chosen: str
    rejected: str
    margin: float = 0.0


class Pairs(Protocol):
    """Preference pairs by index."""

    @property
    def size(self) -> int: ...  # noqa: D102
    def __getitem__(self, index: int) -> PreferencePair: ...


@dataclass(frozen=True, slots=True)
class Preferences:
    """Pairs to train on and pairs held out (None: there are none)."""

    train: Pairs
    held_out: Pairs | None


def open_preferences(
    source: Any,
    *,
    prompt: str = "prompt",
    chosen: str = "chosen",
    rejected: str = "rejected",
    margin: str | None = None,
    held_out: Any = None,
    held_out_split: str | None = None,
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
    limit: int | None = None,
) -> Preferences:
    """Open a source of preference pairs: a file, a directory, a hub id, a `datasets.Dataset`, or a list of dicts.

    `prompt`, `chosen`, `rejected` and `margin` name columns. `held_out` is another source, or a share of this one (by a
    hash of the question, so that no question is on both sides); `held_out_split` another split. `limit` keeps the
    first so many training pairs.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is the number of pairs to keep, at least 1, not {limit}.")
    columns = PairColumns(prompt, chosen, rejected, margin)
    train: Pairs = _open(source, columns, split, config, revision)
    kept_out: Pairs | None = None
    if isinstance(held_out, int | float):
        train, kept_out = _split(train, float(held_out))
    elif held_out is not None:
        kept_out = _open(held_out, columns, held_out_split or "test", None, None)
    elif held_out_split is not None:
        kept_out = _open(source, columns, held_out_split, config, revision)
    if limit is not None:
        train = PairPart(train, np.arange(min(limit, train.size)))
    return Preferences(train, kept_out)


@dataclass(frozen=True, slots=True)
class PairColumns:
    """Which column is what."""

    prompt: str
    chosen: str
    rejected: str
    margin: str | None

    def check(self, rows: Rows) -> None:
        """Refuse names that the source does not have."""
        named = {"chosen": self.chosen, "rejected": self.rejected, "margin": self.margin}
        if self.prompt != "prompt":  # the default may be missing: then the answers are whole conversations
            named["prompt"] = self.prompt
        for what, name in named.items():
            if name is not None and name not in rows.columns:
                raise missing_column(rows.place(0), what, name, rows.columns)

    def read(self, row: Mapping[str, Any], place: str) -> PreferencePair:
        """The pair in a row, or a UserError that names the place."""
        check_text(row, place)
        answers = [_answer(row.get(name), place, name) for name in (self.chosen, self.rejected)]
        prompt = self._prompt(row, place, *(chat for chat, _ in answers))
        (_, better), (_, worse) = answers
        if prompt is None:
            text, better, worse = _shared(better, worse, place, self)
            prompt = Prompt.make(messages=_turns(text))
        if not better.strip():
            raise UserError(f"{place} has no text in {self.chosen!r}. Fill it in or remove the row.")
        return PreferencePair(prompt, better, worse, self._margin(row, place))

    def _prompt(self, row: Mapping[str, Any], place: str, better: Any, worse: Any) -> Prompt | None:
        """The prompt from the conversations or from its column; None where it is in the texts of the answers."""
        if better != worse and (better or worse):
            raise UserError(
                f"{place}: {self.chosen!r} and {self.rejected!r} answer different conversations; they must differ in "
                "the last message only. Mend or remove the row."
            )
        if better:
            return Prompt.make(messages=better)
        if row.get(self.prompt) is None:
            return None
        text, chat = ColumnMap(self.prompt).read_question(row, place)
        return Prompt.make(text=text, messages=chat)

    def _margin(self, row: Mapping[str, Any], place: str) -> float:
        if self.margin is None:
            return 0.0
        value = row.get(self.margin)
        if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
            raise UserError(f"{place}: {self.margin!r} holds {kind(value)}; a margin is a number of at least 0.")
        return float(value)


@dataclass(frozen=True, slots=True)
class RowPairs:
    """The rows of a source as pairs, read when asked for."""

    rows: Rows
    columns: PairColumns

    @property
    def size(self) -> int:
        """The number of rows."""
        return len(self.rows)

    def __getitem__(self, index: int) -> PreferencePair:
        if not 0 <= index < self.size:
            raise IndexError(f"pair {index} of {self.size}")
        return self.columns.read(self.rows[index], self.rows.place(index))


@dataclass(frozen=True, slots=True)
class PairPart:
    """Some of the pairs of a sequence, in its order."""

    whole: Pairs
    indices: np.ndarray

    @property
    def size(self) -> int:
        """How many belong to the part."""
        return len(self.indices)

    def __getitem__(self, index: int) -> PreferencePair:
        return self.whole[int(self.indices[index])]


def _open(source: Any, columns: PairColumns, split: str, config: str | None, revision: str | None) -> RowPairs:
    rows = open_rows(source, split, config, revision)
    columns.check(rows)
    pairs = RowPairs(rows, columns)
    for index in range(min(pairs.size, CHECKED)):
        pairs[index]  # reading a row checks it
    return pairs


def _split(pairs: Pairs, share: float) -> tuple[Pairs, Pairs]:
    if isinstance(share, bool) or not 0 < share < 1:
        raise UserError(f"held_out is a share between 0 and 1, a file or another source, not {share:g}.")
    shares = np.fromiter((question_share(pairs[i].prompt) for i in range(pairs.size)), np.float64, pairs.size)
    out = shares < share
    if out.all() or not out.any():
        side = "no pair to train on" if out.all() else "no held-out pair"
        raise UserError(
            f"held_out = {share:g} of {pairs.size} pairs leaves {side}. Choose another share, or name a held-out file."
        )
    return PairPart(pairs, np.flatnonzero(~out)), PairPart(pairs, np.flatnonzero(out))


def _answer(value: Any, place: str, column: str) -> tuple[tuple[Message, ...], str]:
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


def _shared(better: str, worse: str, place: str, columns: PairColumns) -> tuple[str, str, str]:
    """(prompt, better answer, worse answer) of two texts that begin with the same conversation."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(better, worse)))
    turns = [turn for turn in _TURN.finditer(better) if turn.end() <= same]
    if not turns or turns[-1][1] != "Assistant" or not better.startswith("\n\nHuman:"):
        raise UserError(
            f"{place} has no {columns.prompt!r}, and {columns.chosen!r} and {columns.rejected!r} do not begin with a "
            'conversation ("\\n\\nHuman: ... \\n\\nAssistant:") that they share. Name the column with prompt = "...".'
        )
    start = turns[-1].end()
    return better[: turns[-1].start()], better[start:].strip(), worse[start:].strip()


def _turns(text: str) -> Sequence[Message]:
    _, *parts = _TURN.split(text)
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[who], "content": said.strip()} for who, said in zip(parts[::2], parts[1::2])]
