"""Sequences of prompts: rows read through a column map, a plain list, and parts of either."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cohort.tasks.columns import ColumnMap
from cohort.tasks.sources import Rows
from cohort.types import Prompt, content_id

__all__ = ["LeveledPrompts", "Part", "PromptList", "Prompts", "RowPrompts", "question_share"]


class Prompts(Protocol):
    """Prompts by index. `size` is None where there is no end to them."""

    @property
    def size(self) -> int | None: ...  # noqa: D102
    def __getitem__(self, index: int) -> Prompt: ...


class LeveledPrompts(Prompts, Protocol):
    """Prompts without an end that are made at a level of difficulty. By index alone, the levels take turns."""

    @property
    def levels(self) -> tuple[int, ...]: ...  # noqa: D102
    def at(self, level: int, index: int) -> Prompt: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class RowPrompts:
    """The rows of a source as prompts, read when asked for."""

    rows: Rows
    columns: ColumnMap

    @property
    def size(self) -> int:
        """The number of rows."""
        return len(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Prompt:
        check_index(index, len(self.rows))
        return self.columns.read(self.rows[index], self.rows.place(index))


@dataclass(frozen=True, slots=True)
class PromptList:
    """Prompts that somebody made in Python. `environment` is the one, as `environment.use` names it, that they must be
    played in, because a conversation of theirs does not end with the first reply.
    """

    prompts: Sequence[Prompt]
    environment: str | None = None

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.prompts)

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: int) -> Prompt:
        check_index(index, len(self.prompts))
        return self.prompts[index]


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the prompts of a sequence, in its order."""

    whole: Prompts
    indices: np.ndarray  # int64, ascending

    @property
    def size(self) -> int:
        """How many belong to the part."""
        return len(self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Prompt:
        check_index(index, len(self.indices))
        return self.whole[int(self.indices[index])]

    def __iter__(self) -> Iterator[Prompt]:
        return (self[index] for index in range(len(self.indices)))


def question_share(prompt: Prompt) -> float:
    """A number in [0, 1) that depends on the question alone, whatever its case and spacing; it decides the split."""
    question = prompt.text if prompt.text is not None else content_id(prompt.messages)
    digest = hashlib.blake2b(
        " ".join(question.lower().split()).encode("utf-8", "surrogatepass"), digest_size=8
    ).digest()
    return int.from_bytes(digest, "little") / 2**64


def check_index(index: int, size: int) -> None:
    """Indices run from 0 to size - 1; a negative one is a mistake, not the end."""
    if not 0 <= index < size:
        raise IndexError(f"prompt {index} of {size}")
