"""From a row to a prompt: which column is what, and what is wrong with a row that does not fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from cohort.tasks.files import kind
from cohort.tasks.sources import Rows
from cohort.types import Message, Prompt, UserError
from cohort.wording import nearest

__all__ = ["AnswerFormat", "ColumnMap", "check_text", "conversation", "gsm8k_answer", "missing_column"]

AnswerFormat = Literal["plain", "gsm8k"]


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """Which column holds the prompt and which the gold answer; every other column becomes a tag."""

    prompt: str = "prompt"
    answer: str = "answer"
    messages: str | None = None
    answer_format: AnswerFormat = "plain"
    answer_required: bool = False

    @property
    def question(self) -> str:
        """The column with the question, whether text or messages."""
        return self.messages or self.prompt

    @property
    def needs_answer(self) -> bool:
        """An answer column that the person named, or that must be parsed, has to be there."""
        return self.answer_required or self.answer != "answer" or self.answer_format == "gsm8k"

    def settle(self, rows: Rows) -> ColumnMap:
        """Check the names against the source. Without a prompt column, a column `messages` is taken."""
        unnamed = self.messages is None and self.prompt == "prompt" and "prompt" not in rows.columns
        if unnamed and "messages" in rows.columns:
            return replace(self, messages="messages")
        if self.question not in rows.columns:
            raise missing_column(rows.place(0), "messages" if self.messages else "prompt", self.question, rows.columns)
        if self.needs_answer and self.answer not in rows.columns:
            raise missing_column(rows.place(0), "answer", self.answer, rows.columns)
        return self

    def read(self, row: Mapping[str, Any], place: str) -> Prompt:
        """The prompt in a row, or a UserError that names the place."""
        check_text(row, place)
        text, chat = self.read_question(row, place)
        tags = {name: value for name, value in row.items() if name not in (self.question, self.answer)}
        answer = row.get(self.answer)
        if answer is None and self.needs_answer:
            if self.answer in row:
                raise empty_column(place, self.answer)
            raise missing_column(place, "answer", self.answer, row)
        if isinstance(answer, float) and not math.isfinite(answer):
            raise UserError(f"{place}: the answer in {self.answer!r} is {answer}. Write a number, or remove the row.")
        if self.answer_format == "gsm8k":
            working, answer = gsm8k_answer(answer, place)
            tags.setdefault("reasoning", working)
        if self.answer != "answer" and answer is not None:
            tags[self.answer] = answer  # rewards may ask for it under its own name, too
        return Prompt.make(text=text, messages=chat, answer=answer, tags=tags)

    def read_question(self, row: Mapping[str, Any], place: str) -> tuple[str | None, tuple[Message, ...] | None]:
        """The text or the messages to answer."""
        value = row.get(self.question)
        if value is None:
            if self.question in row:
                raise empty_column(place, self.question)
            raise missing_column(place, "prompt", self.question, row)
        if isinstance(value, str) and self.messages is None:
            if not value.strip():
                raise empty_column(place, self.question)
            return value, None
        chat = conversation(value, place, self.question)
        if chat[-1]["role"] == "assistant":
            raise UserError(
                f"{place}: the conversation in {self.question!r} ends with the assistant's turn, so nothing is left to "
                "answer. Remove that turn, or use the row for supervised training."
            )
        if not str(chat[-1]["content"]).strip():
            raise empty_column(place, self.question)
        return None, chat


def conversation(value: Any, place: str, column: str) -> tuple[Message, ...]:
    """A list of {"role", "content"} as messages, without the None that Arrow puts where a row lacks a field."""
    if not isinstance(value, (list, tuple)):
        raise UserError(
            f'{place}: {column!r} holds {kind(value)}; it must be text or a list of {{"role", "content"}}. Put it in '
            "quotes, or name another column."
        )
    if not value:
        raise empty_column(place, column)
    for message in value:
        if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
            raise UserError(f'{place}: every message in {column!r} needs "role" and "content"; one is {message!r}.')
    return tuple({key: part for key, part in message.items() if part is not None} for message in value)


def gsm8k_answer(value: Any, place: str) -> tuple[str, str]:
    """Working and answer of a GSM8K solution: the answer is what follows the last `####`, without commas."""
    working, mark, answer = str(value).rpartition("####")
    answer = answer.strip().replace(",", "")
    if not mark or not answer:
        raise UserError(
            f'{place}: no "#### answer" in {str(value)[-40:]!r}. Use answer_format = "plain", or mend the row.'
        )
    return working.strip(), answer


def check_text(row: Mapping[str, Any], place: str) -> None:
    """Refuse half characters ("\\ud800" in JSON): no tokenizer and no file takes them."""
    for column, value in row.items():
        if not encodes(value):
            raise UserError(
                f"{place}: {column!r} is not valid text: it holds half of a character (a lone surrogate). Mend or "
                "remove the row."
            )


def encodes(value: Any) -> bool:
    """Whether all text in a value can be written as UTF-8."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
    elif isinstance(value, Mapping):
        return all(encodes(item) for item in value.values())
    elif isinstance(value, (list, tuple)):
        return all(encodes(item) for item in value)
    return True


def empty_column(place: str, column: str) -> UserError:
    """The error for a prompt or an answer with nothing in it."""
    return UserError(f"{place} has an empty {column!r}. Fill it in or remove the row.")


def missing_column(place: str, what: str, name: str, columns: Any) -> UserError:
    """The error for a column that is not there, with those that are."""
    close = nearest(name, columns)
    hint = f" Did you mean {close!r}?" if close else f' Name the column with {what} = "...".'
    return UserError(f"{place} has no column {name!r}; it has {', '.join(map(repr, columns)) or 'none'}.{hint}")
