"""Questions as hashes of their words, end to end: what every layer is a function of.

Texts are compared as `normal_text` has them (compatible characters, no case, no punctuation). Words are hashed by
BLAKE2b to 64 bits and word sequences by a polynomial over these, so nothing depends on Python's own hash.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cohort.rewards.verifiers.text import normal_text

NUMBER = re.compile("(?<![\\w\u22c5])\u2212?[0-9\u22c5]*[0-9]")  # normal_text's minus and point; not the 2 of x2
MARK = "#"  # stands for any number; normal_text leaves none
_KEPT = 2**20  # words whose hashes are kept; then anew, so that memory is flat
_P = 0x9E3779B97F4A7C15  # an odd number; that of Fibonacci hashing


@dataclass(frozen=True, slots=True)
class Question:
    """A row of either side: its id, where it stands, what is asked, and the gold answer, if there is one."""

    id: str
    place: str
    text: str
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Texts:
    """Q questions of N words. `words`, `masked` [N]: the hash of every word, as it is and with its digits masked.
    `starts` [Q + 1]: where each question begins. `answers` [Q]: the hash of the normalised answer, 0 without one.
    """

    words: np.ndarray
    masked: np.ndarray
    starts: np.ndarray
    answers: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """The words of every question, [Q]."""
        return np.diff(self.starts)

    @property
    def rows(self) -> np.ndarray:
        """Which question each word is of, [N]."""
        return np.repeat(np.arange(len(self.starts) - 1), self.lengths)


class Hasher:
    """Makes `Texts`. It remembers words that it has seen."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}

    def texts(self, questions: Sequence[Question]) -> Texts:
        """The words of some questions."""
        found: list[tuple[int, int]] = []
        starts = [0]
        for question in questions:
            found += map(self._word, normal_text(question.text).split())
            starts.append(len(found))
        both = np.array(found, np.uint64).reshape(-1, 2)
        answers = [_hash(said) if (said := normal_text(one.answer or "")) else 0 for one in questions]
        return Texts(both[:, 0], both[:, 1], np.array(starts), np.array(answers, np.uint64))

    def _word(self, word: str) -> tuple[int, int]:
        if (known := self._seen.get(word)) is not None:
            return known
        if len(self._seen) >= _KEPT:
            self._seen.clear()
        found = self._seen[word] = (_hash(word), _hash(NUMBER.sub(MARK, word)))
        return found


def grams(texts: Texts, n: int) -> tuple[np.ndarray, np.ndarray]:
    """`(place of the first word, hash)` of every n words in a row that lie in one question, in their order."""
    count = max(len(texts.words) - n + 1, 0)
    keys = np.zeros(count, np.uint64)
    for offset in range(n if count else 0):
        keys = keys * np.uint64(_P) + texts.words[offset : offset + count]
    rows = texts.rows
    at = np.flatnonzero(rows[:count] == rows[len(rows) - count :])
    return at, keys[at]


def wholes(words: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(question, hash)` of every question that has a word."""
    rows = np.flatnonzero(np.diff(starts))
    if not len(rows):
        return rows, words[:0]
    longest = int(np.diff(starts).max())
    powers = np.multiply.accumulate(np.full(longest, _P, np.uint64))  # one more each word: 2 words are not 1
    within = np.arange(len(words)) - np.repeat(starts[:-1], np.diff(starts))
    return rows, np.add.reduceat(words * powers[within], starts[rows])


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
