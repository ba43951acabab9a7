"""From a row to a prompt: which column is what, and what is wrong with a row that does not fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from cohort import settings
from cohort.chat import text_of
from cohort.tasks.prompts import Asked, Rows
from cohort.tasks.sources.base import needs_answer
from cohort.tasks.sources.files import kind
from cohort.types import Message, Prompt, UserError, inside
from cohort.wording import nearest, shorten


def with_inner(rows: Rows, names: Iterable[Any]) -> Rows:
    """The rows with what dotted `names` mean as columns of their own: "reward_model.ground_truth" is what the column
    `reward_model` has under `ground_truth`. A column that is called so itself is that column.
    """
    texts = dict.fromkeys(name for name in names if isinstance(name, str))
    inner = [name for name in texts if name not in rows.columns and name.partition(".")[0] in rows.columns]
    if not inner:
        return rows

    def get(index: int) -> Mapping[str, Any]:
        row = dict(rows[index])
        for name in inner:
            with suppress(LookupError):  # whoever needs it says that it is missing
                row[name] = inside(row, name)
        return row

    return replace(rows, columns=(*rows.columns, *inner), get=get, each=None)


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """Which column holds the question, as text or as messages, and which the answer; every other one becomes a tag."""

    question: str
    chat: bool
    answer: str
    needs_answer: bool
    gsm8k: bool

    @classmethod
    def of(cls, table: settings.Prompts, rows: Rows) -> ColumnMap:
        """The columns that a table names, each of which the source must have.

        Where the table names no question and the source has no column `prompt`, its column `messages` is taken. An
        answer column that somebody named, or that must be parsed, has to be there.
        """
        messages, gsm8k = table.messages, table.answer_format == "gsm8k"
        needed = needs_answer(table) or table.answer != "answer" or gsm8k
        if messages is None and table.prompt == "prompt" and "prompt" not in rows.columns:
            messages = "messages" if "messages" in rows.columns else None
        question = messages or table.prompt
        if question not in rows.columns:
            raise missing_column(rows.place(0), "messages" if messages else "prompt", question, _first(rows))
        if needed and table.answer not in rows.columns:
            raise missing_column(rows.place(0), "answer", table.answer, _first(rows))
        return cls(question, messages is not None, table.answer, needed, gsm8k)

    def asked(self, row: Mapping[str, Any], place: str) -> Asked:
        """The question in a row: its text or its messages."""
        return read_question(row, place, self.question, self.chat)

    def read(self, row: Mapping[str, Any], place: str) -> Prompt:
        """The prompt in a row, or a UserError that names the place."""
        text, chat = self.asked(row, place)
        tags = {name: value for name, value in row.items() if name not in (self.question, self.answer)}
        answer = row.get(self.answer)
        if answer is None and self.needs_answer:
            found = self.answer in row
            raise _empty(place, self.answer) if found else missing_column(place, "answer", self.answer, row)
        if isinstance(answer, float) and not math.isfinite(answer):
            raise UserError(f"{place}: the answer in {self.answer!r} is {answer}. Write a number, or remove the row.")
        if self.gsm8k:
            working, answer = gsm8k_answer(answer, place)
            tags.setdefault("reasoning", working)
        if self.answer != "answer" and answer is not None:
            tags[self.answer] = answer  # rewards may ask for it under its own name, too
        return Prompt.make(text=text, messages=chat, answer=answer, tags=tags)


def read_question(row: Mapping[str, Any], place: str, column: str, chat: bool) -> Asked:
    """The text or the messages to answer; with `chat` the column holds no text."""
    value = row.get(column)
    if value is None:
        raise _empty(place, column) if column in row else missing_column(place, "prompt", column, row)
    if isinstance(value, str) and not chat:
        if not value.strip():
            raise _empty(place, column)
        return value, None
    messages = conversation(value, place, column)
    if messages[-1]["role"] == "assistant" and (len(messages) == 1 or messages[-1].get("tool_calls")):
        raise UserError(
            f"{place}: the conversation in {column!r} is a turn of the assistant that nothing can go on from: there is "
            "no question, or it calls a tool. Mend or remove the row."
        )
    if not messages[-1]["content"].strip():
        raise _empty(place, column)
    return None, messages


def conversation(value: Any, place: str, column: str) -> tuple[Message, ...]:
    """A list of {"role", "content"} as messages: their contents are text, without the None that Arrow puts where a row
    lacks a field. An assistant that calls tools may say nothing beside.
    """
    if not isinstance(value, (list, tuple)):
        raise UserError(
            f'{place}: {column!r} holds {kind(value)}; it must be text or a list of {{"role", "content"}}. Put it in '
            "quotes, or name another column."
        )
    if not value:
        raise _empty(place, column)
    for message in value:
        said = isinstance(message, Mapping) and isinstance(message.get("role"), str)
        if not said or (message.get("content") is None and message["role"] != "assistant"):
            raise UserError(
                f'{place}: every message in {column!r} needs "role" and "content"; one is {shorten(message)}.'
            )
    return tuple(_message(message, place, column) for message in value)


def _message(message: Message, place: str, column: str) -> Message:
    """A message whose content is text."""
    kept = {key: part for key, part in message.items() if part is not None}
    try:
        return {**kept, "content": text_of(kept.get("content", ""))}
    except ValueError as error:
        raise UserError(
            f"{place}: the content of a message in {column!r} is {error}. It must be text, or a list of parts that are "
            '{"type": "text", "text": ...}: Cohort trains on text alone. Mend or remove the row.'
        ) from None


def of_text(prompt: Prompt, place: str) -> Prompt:
    """A prompt that somebody made in Python, with messages whose contents are text."""
    if prompt.messages is None or all(isinstance(message.get("content"), str) for message in prompt.messages):
        return prompt
    return replace(prompt, messages=conversation(prompt.messages, place, "messages"))


def gsm8k_answer(value: Any, place: str) -> tuple[str, str]:
    """Working and answer of a GSM8K solution: the answer is what follows the last `####`, without commas."""
    working, mark, answer = str(value).rpartition("####")
    answer = answer.strip().replace(",", "")
    if not mark or not answer:
        raise UserError(
            f'{place}: no "#### answer" in {str(value)[-40:]!r}. Use answer_format = "plain", or mend the row.'
        )
    return working.strip(), answer


def _first(rows: Rows) -> dict[str, Any]:
    """The first row, with every column of the source."""
    return {**dict.fromkeys(rows.columns), **rows[0]}


def _empty(place: str, column: str) -> UserError:
    return UserError(f"{place} has an empty {column!r}. Fill it in or remove the row.")


def missing_column(place: str, what: str, name: str, columns: Iterable[str] | Mapping[str, Any]) -> UserError:
    """The error for a column that is not there, with those that are; of a row also with what lies inside of them."""
    row = columns if isinstance(columns, Mapping) else {}
    deeper = [f"{column}.{key}" for column, value in row.items() if isinstance(value, Mapping) for key in value]
    known = [*columns, *(deeper if "." in name else ())]
    close = next((path for path in deeper if path.endswith(f".{name}")), None) or nearest(name, known)
    hint = f" Did you mean {close!r}?" if close else f' Name the column: {what} = "...".'
    return UserError(f"{place} has no column {name!r}; it has {', '.join(map(repr, known)) or 'none'}.{hint}")
