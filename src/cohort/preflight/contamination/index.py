"""The small side, by key: which of its questions have a hash, in sorted arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from cohort.preflight.contamination.layers import COMMON, COVERED, Keys, Layer, question
from cohort.preflight.contamination.texts import Texts, grams

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # (training prompt, question, share of it), all of one length


@dataclass(frozen=True, slots=True)
class Index:
    """K keys of B questions. `owners[first[k] : first[k + 1]]` are the questions that have `keys[k]`; `sizes` [B]: how
    many keys each has, so that one with 0 cannot be found.
    """

    keys: np.ndarray
    first: np.ndarray
    owners: np.ndarray
    sizes: np.ndarray

    @staticmethod
    def of(found: Keys, questions: int) -> Index:
        """The index of the keys of so many questions."""
        rows, keys = distinct(found)
        known, first = np.unique(keys, return_index=True)
        return Index(known, np.append(first, len(keys)), rows, np.bincount(rows, minlength=questions))

    def matches(self, found: Keys) -> tuple[np.ndarray, np.ndarray]:
        """`(training prompt, number of a key)` of the keys that are known, each pair once."""
        rows, keys = found
        if not len(self.keys) or not len(keys):
            return rows[:0], rows[:0]
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        known = self.keys[at] == keys
        return distinct((rows[known], at[known]))

    def spread(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every pair of a key, of those with the numbers `at`, and a question that has it, as two arrays: of places in
        `at`, and of numbers of questions.
        """
        many = self.first[at + 1] - self.first[at]
        within = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        return np.repeat(np.arange(len(at)), many), self.owners[np.repeat(self.first[at], many) + within]


@dataclass(frozen=True, slots=True)
class Indexed:
    """A layer with the index of a benchmark."""

    layer: Layer
    index: Index
    copies: Index | None = None  # of a weak layer: what a copy is known by, for copies are no weak finding

    @staticmethod
    def of(layer: Layer, benchmark: Texts) -> Indexed:
        """The index of what the layer compares."""
        rows, keys = layer.keys(benchmark)
        if layer.common:
            own = _own(layer, benchmark)
            rows, keys = rows[own], keys[own]
        questions = len(benchmark.lengths)
        copies = Index.of(question(benchmark), questions) if layer.weak else None
        return Indexed(layer, Index.of((rows, keys), questions), copies)

    @property
    def looked_at(self) -> int:
        """The questions that have what the layer compares."""
        return int(np.count_nonzero(self.index.sizes))

    def pairs(self, training: Texts) -> Pairs:
        """What is found in some training prompts. Where any key will do, every prompt that has one, and every question
        that has one, is in some pair, but not every pair of them is named.
        """
        index = self.index
        rows, at = index.matches(self.layer.keys(training))
        if self.copies is not None:
            others = ~np.isin(rows, self.copies.matches(question(training))[0])
            rows, at = rows[others], at[others]
        if self.layer.at_least is None:
            _, by_key = np.unique(at, return_index=True)
            _, by_row = np.unique(rows, return_index=True)
            which, owners = index.spread(at[by_key])
            rows = np.concatenate([rows[by_key][which], rows[by_row]])
            owners = np.concatenate([owners, index.owners[index.first[at[by_row]]]])
            return rows, owners, np.ones(len(rows))
        which, owners = index.spread(at)
        pairs, shared = np.unique(rows[which] * len(index.sizes) + owners, return_counts=True)
        rows, owners = np.divmod(pairs, len(index.sizes))
        share = shared / index.sizes[owners]
        enough = share >= self.layer.at_least
        return rows[enough], owners[enough], share[enough]


def distinct(found: Keys) -> Keys:
    """Each pair once, ordered by key and then by row."""
    rows, keys = found
    order = np.lexsort((rows, keys))
    rows, keys = rows[order], keys[order]
    new = np.ones(len(rows), bool)
    new[1:] = (rows[1:] != rows[:-1]) | (keys[1:] != keys[:-1])
    return rows[new], keys[new]


def by_row(found: Keys) -> Iterator[tuple[int, np.ndarray]]:
    """Each row that has keys, with them, each once."""
    rows, keys = distinct(found)
    known, first = np.unique(rows := rows[order := np.argsort(rows, kind="stable")], return_index=True)
    return zip(known.tolist(), np.split(keys[order], first[1:]))


def _own(layer: Layer, benchmark: Texts) -> np.ndarray:
    """Which keys of a layer are the questions' own, [N] bool: not those that too many of them have, nor those with a
    word of a form that too many of them are written in.
    """
    once = np.zeros(len(benchmark.lengths), bool)  # a question that occurs twice counts once
    whole, texts = question(benchmark)
    once[whole[np.unique(texts, return_index=True)[1]]] = True
    at, words = grams(benchmark, COVERED)
    form = np.zeros(len(benchmark.words), bool)
    for start in at[_common(benchmark.rows[at], words, once)]:
        form[start : start + COVERED] = True
    keys = layer.keys(benchmark)[1]
    others = layer.keys(replace(benchmark, words=np.where(form, ~benchmark.words, benchmark.words)))[1]
    return (keys == others) & ~_common(layer.keys(benchmark)[0], keys, once)


def _common(rows: np.ndarray, keys: np.ndarray, once: np.ndarray) -> np.ndarray:
    """Which keys too many questions have, [N] bool: of a few questions, more than half of them."""
    known, many = np.unique(distinct((rows[once[rows]], keys[once[rows]]))[1], return_counts=True)
    return many[np.searchsorted(known, keys)] > max(2, min(COMMON, int(once.sum()) // 2))
