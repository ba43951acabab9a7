"""The layers: what of a question is compared, and how much of it must be in one training prompt.

A layer gives every question keys, 64-bit hashes. A question of the benchmark is found where one training prompt has at
least the share `at_least` of its keys; `None` is one of them, whatever their number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from cohort.preflight.contamination.texts import Texts, grams, wholes

Keys = tuple[np.ndarray, np.ndarray]  # (question, hash), both of one length
GRAM, COVERED, SHINGLE = 13, 8, 3  # words
COVERAGE = 0.7  # of a question's 8-grams: PaLM, arXiv 2204.02311, section 8
SAME_ANSWER = 0.5  # of a question's shingles, where the answer is the same
COMMON = 10  # questions beyond which a word sequence is one of form: GPT-3, arXiv 2005.14165, appendix C


@dataclass(frozen=True, slots=True)
class Layer:
    """`what` says in words when a question is found. `weak`: it is then no copy, and may well be what was wanted.
    `common`: what many questions of the benchmark share says nothing, and is left out.
    """

    what: str
    keys: Callable[[Texts], Keys]
    at_least: float | None = None
    common: bool = False
    weak: bool = False


def question(texts: Texts) -> Keys:
    """The whole question."""
    return wholes(texts.words, texts.starts)


def template(texts: Texts) -> Keys:
    """The whole question with its numbers masked, of those that have a number."""
    rows, keys = wholes(texts.masked, texts.starts)
    numbers = np.bincount(texts.rows[texts.masked != texts.words], minlength=len(texts.lengths))
    return rows[numbers[rows] > 0], keys[numbers[rows] > 0]


def shingles(texts: Texts, n: int = SHINGLE) -> Keys:
    """Every `n` words in a row."""
    at, keys = grams(texts, n)
    return texts.rows[at], keys


def with_answer(texts: Texts, keys_of: Callable[[Texts], Keys]) -> Keys:
    """The keys together with the answer, of those that have one."""
    rows, keys = keys_of(texts)
    has = texts.answers[rows] != 0
    return rows[has], keys[has] ^ texts.answers[rows[has]]


LAYERS: Mapping[str, Layer] = {
    "exact": Layer("the same question", question),
    "exact_with_answer": Layer("the same question with the same answer", partial(with_answer, keys_of=question)),
    "13_gram": Layer(f"{GRAM} words of it in a row", partial(shingles, n=GRAM), common=True),
    "8_gram_coverage": Layer(f"{COVERAGE:.0%} of its {COVERED}-grams in one prompt", partial(shingles, n=COVERED),
                             COVERAGE, common=True),
    "same_answer": Layer(f"the same answer, and {SAME_ANSWER:.0%} of its {SHINGLE}-grams in one prompt",
                         partial(with_answer, keys_of=shingles), SAME_ANSWER, common=True),
    "template": Layer("the same question with other numbers", template, weak=True),
}  # fmt: skip
SHORT = ("exact", "13_gram")  # what a run is looked at for before its first step
