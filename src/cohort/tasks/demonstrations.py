"""Examples for supervised training: prompts with the completion to learn, generated or from a person's own data.

examples = open_demonstrations("demos.jsonl", prompt="question", completion="solution")
examples = open_demonstrations("word_problems", levels=(1, 2), careful={1: 0.5, 2: 0.3})
examples[0].prompt, examples[0].completion
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cohort.tasks.arithmetic import ARITHMETIC, Arithmetic, ArithmeticDemonstrations
from cohort.tasks.columns import ColumnMap, check_text, conversation, missing_column
from cohort.tasks.foreign import gym_task
from cohort.tasks.sources import Rows, open_rows
from cohort.tasks.supervised import SupervisedExample
from cohort.tasks.word_problems import demonstrations as word_demonstrations
from cohort.types import Prompt, UserError

__all__ = ["Demonstrations", "SupervisedExample", "open_demonstrations"]

CHECKED = 20_000  # rows read when a source is opened, so that a bad one is found before a model loads


class Demonstrations(Protocol):
    """Supervised examples by index. `size` is None where there is no end to them."""

    @property
    def size(self) -> int | None: ...  # noqa: D102
    def __getitem__(self, index: int) -> SupervisedExample: ...


def open_demonstrations(
    source: Any,
    *,
    prompt: str = "prompt",
    completion: str = "completion",
    messages: str | None = None,
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
    levels: Sequence[int] | None = None,
    seed: int = 0,
    careful: float | Mapping[int, float] = 0.5,
    sloppy_right: float = 0.2,
    careful_first: int = 0,
    limit: int | None = None,
) -> Demonstrations:
    """Open a source of supervised examples.

    Rows have a prompt and a completion, or one conversation in `messages` whose last turn is the assistant's. The
    sources "word_problems" and "arithmetic" make their own; what stands from `levels` to `careful_first` is for them.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is the number of examples to keep, at least 1, not {limit}.")
    if gym_task(source):
        raise UserError(
            f"{source} has questions and answers but no completions to learn from; a supervised stage needs rows with "
            "both."
        )
    made: Demonstrations | None = None
    if isinstance(source, str) and source == "word_problems":
        made = word_demonstrations(levels or (1, 2), seed, "train", careful, sloppy_right, careful_first)
    if isinstance(source, str) and source == ARITHMETIC:
        made = ArithmeticDemonstrations(Arithmetic(levels or (1, 2), seed), careful, sloppy_right, careful_first)
    if made is not None:
        return made if limit is None else ExampleList([made[index] for index in range(limit)])
    if isinstance(source, Sequence) and len(source) and isinstance(source[0], SupervisedExample):
        return ExampleList(source[:limit])
    rows = open_rows(source, split, config, revision)
    has_pair = messages is None and completion in rows.columns
    if not has_pair and (messages or "messages") not in rows.columns:
        missing = ("messages", messages) if messages else ("completion", completion)
        raise missing_column(rows.place(0), *missing, rows.columns)
    examples: RowExamples
    if has_pair:
        columns = ColumnMap(prompt=prompt, answer_required=False).settle(rows)
        examples = PairExamples(rows, size_of(rows, limit), columns, completion)
    else:
        examples = ChatExamples(rows, size_of(rows, limit), messages or "messages")
    for index in range(min(examples.size, CHECKED)):
        examples[index]  # reading a row checks it
    return examples


def size_of(rows: Rows, limit: int | None) -> int:
    """How many rows to use."""
    return len(rows) if limit is None else min(limit, len(rows))


@dataclass(frozen=True)
class RowExamples:
    """The rows of a source as examples."""

    rows: Rows
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> SupervisedExample:
        if not 0 <= index < self.size:
            raise IndexError(f"example {index} of {self.size}")
        return self.read(self.rows[index], self.rows.place(index))

    def read(self, row: Mapping[str, Any], place: str) -> SupervisedExample:
        """The example in a row."""
        raise NotImplementedError


@dataclass(frozen=True)
class PairExamples(RowExamples):
    """A prompt column and a completion column. The completion is text or a list with one assistant message."""

    columns: ColumnMap
    completion: str

    def read(self, row: Mapping[str, Any], place: str) -> SupervisedExample:
        """The example in a row."""
        prompt = self.columns.read(row, place)
        completion = row.get(self.completion)
        if isinstance(completion, (list, tuple)):
            completion = assistant_text(conversation(completion, place, self.completion), place)
        if not isinstance(completion, str) or not completion.strip():
            raise UserError(f"{place} has no text in {self.completion!r}. Fill it in or remove the row.")
        tags = {name: value for name, value in prompt.tags.items() if name != self.completion}
        return SupervisedExample(Prompt.make(prompt.text, prompt.messages, prompt.answer, tags), completion)


@dataclass(frozen=True)
class ChatExamples(RowExamples):
    """One conversation a row; its last turn is the completion."""

    messages: str

    def read(self, row: Mapping[str, Any], place: str) -> SupervisedExample:
        """The example in a row."""
        check_text(row, place)
        chat = conversation(row.get(self.messages) or [], place, self.messages)
        if len(chat) < 2:
            raise UserError(f"{place}: the conversation in {self.messages!r} has one message; it needs a question too.")
        completion = assistant_text(chat, place)
        tags = {name: value for name, value in row.items() if name not in (self.messages, "answer")}
        return SupervisedExample(Prompt.make(None, chat[:-1], row.get("answer"), tags), completion)


def assistant_text(chat: Sequence[Mapping[str, Any]], place: str) -> str:
    """The text of the last message, which must be the assistant's."""
    if chat[-1]["role"] != "assistant" or not str(chat[-1]["content"]).strip():
        raise UserError(
            f"{place}: the last message is the {chat[-1]['role']}'s or is empty; supervised training learns the "
            "assistant's last turn. Add it or remove the row."
        )
    return str(chat[-1]["content"])


@dataclass(frozen=True)
class ExampleList:
    """Examples that somebody made in Python."""

    examples: Sequence[SupervisedExample]

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.examples)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> SupervisedExample:
        return self.examples[index]
