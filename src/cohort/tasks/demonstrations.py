"""Examples for supervised training: prompts with the completion to learn, generated or from a person's own data.

examples = open_demonstrations("demos.jsonl", prompt="question", completion="solution")
examples = open_demonstrations("word_problems", levels=(1, 2), careful={1: 0.5, 2: 0.3})
examples[0].prompt, examples[0].completion
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cohort import settings
from cohort.tasks.prompts import Items, RowItems, Rows, limited, listed
from cohort.tasks.sources.base import DEMONSTRATIONS, built_in_name, has_no
from cohort.tasks.sources.columns import ColumnMap, conversation, missing_column
from cohort.tasks.sources.opening import made_by, rows_of
from cohort.tasks.task import TaskFromPython
from cohort.types import Prompt, UserError


@dataclass(frozen=True, slots=True)
class SupervisedExample:
    """A prompt and the completion to learn."""

    prompt: Prompt
    completion: str


Demonstrations = Items[SupervisedExample]


def open_demonstrations(source: Any, *, seed: int = 0, **fields: Any) -> Demonstrations:
    """Open a source of supervised examples. `fields` are the keys of a recipe's [task] table.

    Rows have a prompt and a completion, or one conversation in `messages` whose last turn is the assistant's. The
    source may also be a `datasets.Dataset`, a list of dicts or of `SupervisedExample`.
    """
    return open_examples(TaskFromPython(source=source, **fields), seed)


def open_examples(table: settings.Task, seed: int) -> Demonstrations:
    """The examples of a [task] table in a supervised stage; `seed` is for sources that make theirs.

    Raises UserError for whatever is wrong with the source and its first rows.
    """
    name = built_in_name(table.source)
    if name in DEMONSTRATIONS:
        return limited(pkgutil.resolve_name(DEMONSTRATIONS[name])(table, seed), table.limit)
    if name:
        raise UserError(
            f"{table.source} has questions and answers but no completions to learn from; a supervised stage needs rows "
            "with both."
        )
    has_no(table, "careful", "careful_first", "sloppy_right")
    made = made_by(table, False, seed)
    if isinstance(made, (list, tuple)) and made and isinstance(made[0], SupervisedExample):
        return limited(listed(made), table.limit)
    rows = rows_of(made, table, False)
    return limited(RowItems(rows, _reader(table, rows), table.limit), table.limit)


def _reader(table: settings.Task, rows: Rows) -> Callable[[Mapping[str, Any], str], SupervisedExample]:
    """What makes an example of a row, by the columns that the rows have."""
    messages = table.messages or "messages"
    if table.messages is None and table.completion in rows.columns:
        columns = ColumnMap.of(settings.Task(source="rows", prompt=table.prompt), rows)
        return lambda row, place: _pair(columns, table.completion, row, place)
    if messages in rows.columns:
        return lambda row, place: _chat(messages, row, place)
    what, column = ("messages", messages) if table.messages else ("completion", table.completion)
    raise missing_column(rows.place(0), what, column, rows.columns)


def _pair(columns: ColumnMap, column: str, row: Mapping[str, Any], place: str) -> SupervisedExample:
    """An example of a prompt column and a completion column, which holds text or a list with one assistant message."""
    prompt = columns.read(row, place)
    completion = row.get(column)
    if isinstance(completion, (list, tuple)):
        completion = _assistant_text(conversation(completion, place, column), place)
    if not isinstance(completion, str) or not completion.strip():
        raise UserError(f"{place} has no text in {column!r}. Fill it in or remove the row.")
    tags = {name: value for name, value in prompt.tags.items() if name != column}
    return SupervisedExample(Prompt.make(prompt.text, prompt.messages, prompt.answer, tags), completion)


def _chat(column: str, row: Mapping[str, Any], place: str) -> SupervisedExample:
    """An example of one conversation; its last turn is the completion."""
    chat = conversation(row.get(column) or [], place, column)
    if len(chat) < 2:
        raise UserError(f"{place}: the conversation in {column!r} has one message; it needs a question too.")
    completion = _assistant_text(chat, place)
    tags = {name: value for name, value in row.items() if name not in (column, "answer")}
    return SupervisedExample(Prompt.make(None, chat[:-1], row.get("answer"), tags), completion)


def _assistant_text(chat: Sequence[Mapping[str, Any]], place: str) -> str:
    """The text of the last message, which must be the assistant's."""
    if chat[-1]["role"] != "assistant" or not str(chat[-1]["content"]).strip():
        raise UserError(
            f"{place}: the last message is the {chat[-1]['role']}'s or is empty; supervised training learns the "
            "assistant's last turn. Add it or remove the row."
        )
    return str(chat[-1]["content"])
