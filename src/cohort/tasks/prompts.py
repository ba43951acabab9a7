"""Sequences that are read when somebody asks: the rows of a source, a plain list, and parts of either."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from cohort.types import Message, Prompt, UserError, content_id

CHECKED = 20_000  # rows that are read when a source is opened, so that a bad one is found before a model loads
LONGEST = 2**26  # bytes of a text in a row: more is a damaged file, and no prompt
KEPT = 2**26  # bytes of text, about, that a source keeps of what was read, so that its rows are read once
OF_A_ROW = 1_000  # bytes that the objects of a row take beside its text
IN_A_ROW = 1_000  # repeats after which a source without an end has nothing new to offer

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Items(Protocol[T_co]):
    """Things by index. `size` is None where there is no end to them."""

    @property
    def size(self) -> int | None: ...  # noqa: D102
    def __getitem__(self, index: int) -> T_co: ...


Prompts = Items[Prompt]
Asked = tuple[str | None, tuple[Message, ...] | None]  # a text, or messages


@dataclass(frozen=True, slots=True)
class Rows:
    """Random access to rows: `get(i)` reads row i of `size`, and `place(i)` says where it came from. `telling` are rows
    that are unlike all before them: one has a column that is missing or empty, or of another type.
    """

    columns: tuple[str, ...]
    size: int
    get: Callable[[int], Mapping[str, Any]]
    place: Callable[[int], str]
    telling: Sequence[int] = ()
    each: Callable[[], Iterator[Mapping[str, Any]]] | None = None  # all of them in their order, where that is quicker

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return map(self.get, range(self.size)) if self.each is None else self.each()

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.get(index)


class RowItems(Generic[T]):
    """The rows of a source, each read when somebody asks for it; `read(row, place)` makes the item. The first of those
    within `limit` are read now, and behind them those that are unlike the others, so that a bad one is found before a
    model loads.

    What was read stays in memory, up to `KEPT` bytes, so that several checks of one source read its rows once.
    """

    def __init__(self, rows: Rows, read: Callable[[Mapping[str, Any], str], T], limit: int | None = None) -> None:
        self.rows, self.read, self.size = rows, read, len(rows)
        self._kept: dict[int, T] = {}
        self._room = KEPT
        end = self.size if limit is None else min(self.size, limit)
        for index in (*range(min(end, CHECKED)), *(one for one in rows.telling if CHECKED <= one < end)):
            self[index]  # reading a row checks it

    def __getitem__(self, index: int) -> T:
        _check_index(index, self.size)
        if index in self._kept:
            return self._kept[index]
        row, place = self.rows[index], self.rows.place(index)
        bytes_of_row = check_text(row, place) + OF_A_ROW
        item = self.read(row, place)
        if bytes_of_row <= self._room:
            self._kept[index] = item
            self._room -= bytes_of_row
        return item


def looked_at(items: Items[Any]) -> list[int]:
    """Which of some items a check before the run reads: the first, and those behind them that are unlike the others."""
    size = items.size or 0
    return [*range(min(size, CHECKED)), *(at for at in _telling(items) if CHECKED <= at < size)]


def _telling(items: Any) -> Sequence[int]:
    if isinstance(items, Part):
        places = {int(whole): at for at, whole in enumerate(items.indices)}
        return [places[whole] for whole in _telling(items.whole) if whole in places]
    return items.rows.telling if isinstance(items, RowItems) else ()


class Part(Generic[T]):
    """Some of the things of a sequence, in its order. `indices`: int64, ascending."""

    def __init__(self, whole: Items[T] | Sequence[T], indices: np.ndarray) -> None:
        self.whole, self.indices, self.size = whole, indices, len(indices)

    def __getitem__(self, index: int) -> T:
        _check_index(index, self.size)
        return self.whole[int(self.indices[index])]


class Distinct:
    """The first `size` different prompts of a source without an end, found as they are asked for; in its order."""

    def __init__(self, whole: Prompts, size: int, name: str) -> None:
        self.whole, self.size, self.name = whole, size, name
        self.kept: list[int] = []  # the numbers in the source
        self.seen: set[str] = set()
        self.looked_at = 0

    def __getitem__(self, index: int) -> Prompt:
        _check_index(index, self.size)
        repeats = 0
        while len(self.kept) <= index:
            question = content_id(self.whole[self.looked_at].question)
            repeats = repeats + 1 if question in self.seen else 0
            if repeats > IN_A_ROW:
                raise UserError(
                    f"{self.name} has about {len(self.kept):,} different prompts at these settings, fewer than limit = "
                    f"{self.size:,}. Lower limit, or use other levels or args."
                )
            if not repeats:
                self.kept.append(self.looked_at)
                self.seen.add(question)
            self.looked_at += 1
        return self.whole[self.kept[index]]


class Joined(Generic[T]):
    """Several sequences that have an end, one behind the other."""

    def __init__(self, parts: Sequence[Items[T]]) -> None:
        self.parts, self.ends = tuple(parts), [*accumulate(part.size or 0 for part in parts)]
        self.size = self.ends[-1]

    def find(self, index: int) -> tuple[Items[T], int]:
        """The sequence in which a thing is, and its number there."""
        _check_index(index, self.size)
        number = bisect_right(self.ends, index)
        return self.parts[number], index - (self.ends[number - 1] if number else 0)

    def __getitem__(self, index: int) -> T:
        part, within = self.find(index)
        return part[within]


def listed(items: Sequence[T]) -> Part[T]:
    """Things that somebody made in Python."""
    return Part(items, np.arange(len(items)))


def first(items: Items[T], count: int) -> Iterator[T]:
    """The first `count` things of a sequence, or all that it has."""
    return (items[index] for index in range(count if items.size is None else min(count, items.size)))


def limited(items: Items[T], limit: int | None) -> Items[T]:
    """The first `limit` things; all of them where it is None."""
    if limit is None:
        return items
    return Part(items, np.arange(limit if items.size is None else min(limit, items.size), dtype=np.int64))


def place_of(items: Items[Any] | Sequence[Any], index: int, what: str) -> str:
    """Where a thing was read, such as `train.jsonl:8`; of what was not read from rows its number, such as `prompt 3`,
    where `what` is the word for one.
    """
    if isinstance(items, Part):
        return place_of(items.whole, int(items.indices[index]), what)
    if isinstance(items, Joined):
        return place_of(*items.find(index), what)
    return items.rows.place(index) if isinstance(items, RowItems) else f"{what} {index + 1}"


def split_by_hash(items: Items[T], share: float, thing: str, asked: Iterable[Asked]) -> tuple[Part[T], Part[T]]:
    """What to train on and what is held out, by what is `asked` in each. One question is always on the same side,
    however often it occurs.

    Raises UserError where one side would be empty; `thing` is the word for one item.
    """
    shares = np.frombuffer(b"".join(_digest(*one) for one in asked), "<u8") / 2**64
    if len(shares) != items.size:
        raise UserError("the data changed while they were read. Start again.")
    held_out = shares < share
    if held_out.all() or not held_out.any():
        raise UserError(
            f"held_out = {share:g} of {items.size} {thing}s leaves no {'training' if held_out.all() else 'held-out'} "
            f"{thing}. Choose another share, or name a held-out file."
        )
    return Part(items, np.flatnonzero(~held_out)), Part(items, np.flatnonzero(held_out))


def asked_in(items: Items[T], prompt_of: Callable[[T], Prompt]) -> Iterator[Asked]:
    """What is asked in each of some items that have an end."""
    assert items.size is not None
    return ((one.text, one.messages) for one in map(prompt_of, first(items, items.size)))


def question_share(prompt: Prompt) -> float:
    """A number in [0, 1) that depends on the question alone, whatever its case and spacing; it decides the split."""
    return int.from_bytes(_digest(prompt.text, prompt.messages), "little") / 2**64


def _digest(text: str | None, messages: Sequence[Message] | None) -> bytes:
    question = " ".join((content_id(messages) if text is None else text).lower().split())
    return hashlib.blake2b(question.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _check_index(index: int, size: int) -> None:
    if not 0 <= index < size:  # a negative one is a mistake, not the end
        raise IndexError(f"number {index} of {size}")


def check_text(row: Mapping[str, Any], place: str) -> int:
    """The bytes of all text in a row. Refuses half characters ("\\ud800" in JSON): no tokenizer and no file takes them;
    and a text of more than `LONGEST` characters.

    A row with something else in it than text and numbers, such as an image, counts as larger than `KEPT`.
    """
    total = 0
    for column, value in row.items():
        try:
            total += _bytes_of(value)
        except UnicodeEncodeError:
            raise UserError(
                f"{place}: {column!r} is not valid text: it holds half of a character (a lone surrogate). Mend or "
                "remove the row."
            ) from None
        except OverflowError:
            raise UserError(
                f"{place}: {column!r} is a text of more than {LONGEST >> 20} MB, which is no prompt. Mend or remove "
                "the row."
            ) from None
    return total


def _bytes_of(value: Any) -> int:
    if isinstance(value, str):
        if len(value) > LONGEST:
            raise OverflowError
        return len(value.encode())
    if isinstance(value, Mapping):
        return sum(map(_bytes_of, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(_bytes_of, value))
    return 8 if value is None or isinstance(value, (bool, int, float)) else KEPT
