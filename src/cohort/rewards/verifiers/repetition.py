"""Penalties for text that repeats itself, by n-grams of its words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from cohort.rewards.marks import checked_by
from cohort.rewards.verifiers.characters import plain

__all__ = ["Measure", "repeated_share", "repetition", "words_of"]

Measure = Literal["ngrams", "words"]
# Words, signs, and single characters of scripts that write no spaces; a run without a break counts in pieces.
_WORD = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\w{1,30}|[^\w\s]")


def check_repetition(n: int, penalty: float, measure: str) -> None:
    """Raise ValueError for arguments that make no sense."""
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"n is the length of an n-gram, 1 or more, not {n!r}")
    if penalty > 0:
        raise ValueError(f"penalty is 0 or less, not {penalty!r}")
    if measure not in ("ngrams", "words"):
        raise ValueError(f'measure is "ngrams" or "words", not {measure!r}')


@checked_by(check_repetition)
def repetition(completion: str, n: int = 4, penalty: float = -1.0, measure: Measure = "ngrams") -> float:
    """`penalty` times the share of the text that repeats something earlier: 0 for none, nearly `penalty` for a loop.

    `measure` "ngrams": the share of n-grams that occurred before, 1 - distinct / all (open-r1's form of Yeo et al.).
    "words": the share of words that lie in such an n-gram (Yeo et al., arXiv 2502.03373, appendix C.2, where each such
    token gets the penalty: this is their mean over all tokens). Case does not matter.
    """
    check_repetition(n, penalty, measure)
    return penalty * repeated_share(words_of(completion), n, measure) + 0.0  # not -0.0


def words_of(text: str) -> list[str]:
    """The words and signs of a text, without regard to case."""
    return _WORD.findall(plain(text).lower())


def repeated_share(words: Sequence[str], n: int, measure: Measure = "ngrams") -> float:
    """The share of n-grams of `words`, or of the words themselves, that repeat an earlier n-gram; 0 for short texts."""
    total = len(words) - n + 1
    if total < 1:
        return 0.0
    numbers: dict[str, int] = {}
    ids = [numbers.setdefault(word, len(numbers)) for word in words]
    seen: set[tuple[int, ...]] = set()
    repeated, covered, free_from = 0, 0, 0
    for start in range(total):
        ngram = tuple(ids[start : start + n])
        if ngram in seen:
            repeated += 1
            covered += start + n - max(start, free_from)
            free_from = start + n
        else:
            seen.add(ngram)
    return repeated / total if measure == "ngrams" else covered / len(words)
