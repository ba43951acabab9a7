"""Answers that are text: equal to the gold answer once both are normalised, similar to it, or sharing its words.

The answer is looked for as `verifiers.final_answer` says; a text that marks none is the answer as a whole. The gold
answer may be a list of texts, each of which is right.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cohort.rewards.items import Labelled, Scored
from cohort.rewards.marks import checked_by, stated_by
from cohort.rewards.verifiers.characters import plain
from cohort.rewards.verifiers.final_answer import final_answer

__all__ = ["check_texts", "exact_text", "f1", "f1_text", "fuzzy_text", "normal_text"]

LONGEST = 20_000  # characters of an answer that is compared by similarity
_MINUS = re.compile(r"(?<![\w)])-(?=\.?[0-9])")
_POINT = re.compile(r"(?:(?<=[0-9])|(?<![\w.]))\.(?=[0-9])")  # 3.5 is not 3 5, and .5 not 5
_GROUPS = re.compile(r"(?<![\w.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![\w,])")
_APART = re.compile(r"(?<![0-9])[^\x00-\x7f](?![0-9])")  # H\u2082O is H2O, but 72\u00b2 is not 722
_ARTICLES = frozenset(("a", "an", "the"))


def check_texts(answer: Any) -> str:
    """The first of the gold texts. Raises ValueError if `answer` is no text, or one that normalises to nothing."""
    return _golds(answer)[0]


@stated_by(check_texts)
@checked_by(check_texts)
def exact_text(completion: str, answer: Any, articles: bool = False) -> Labelled:
    """1 if the answer is the gold answer, else 0, whatever their case, punctuation, spaces and width of characters.

    Labels: right, wrong, blank.

    The minus of a number counts: 5 is not -5. With `articles`, a, an and the do not count either, as in SQuAD.
    """
    said = normal_text(_answer(completion), articles)
    right = said in {normal_text(gold, articles) for gold in _golds(answer)}
    return Labelled(float(bool(said) and right), "blank" if not said else "right" if right else "wrong")


@stated_by(check_texts)
@checked_by(check_texts)
def fuzzy_text(completion: str, answer: Any, threshold: float = 0.5) -> Scored:
    """The similarity of the normalised answer and gold answer: 1 if they are equal, 0 below `threshold`.

    The similarity is 1 - d / (m + n) with lengths m and n and the number d of characters to insert or remove
    (rapidfuzz's ratio). The best of several gold answers counts. An answer of more than 20,000 characters scores 0.
    """
    from rapidfuzz.fuzz import ratio

    text = _answer(completion)
    if len(text) > LONGEST:
        return Scored(0.0, "too_long")
    said = normal_text(text)
    best = max(ratio(said, normal_text(gold)) / 100 for gold in _golds(answer))
    return Scored(best if best >= threshold else 0.0)


@stated_by(check_texts)
@checked_by(check_texts)
def f1_text(completion: str, answer: Any) -> float:
    """The F1 of the words of the answer against those of the gold answer, as SQuAD's evaluation computes it.

    arXiv 1606.05250: words are counted with their multiplicity, articles are left out. The best of several gold answers
    counts. Unlike there, the minus of a number is part of it.
    """
    said = normal_text(_answer(completion), articles=True).split()
    return max(f1(said, normal_text(gold, articles=True).split()) for gold in _golds(answer))


def f1(said: Sequence[str], gold: Sequence[str]) -> float:
    """2PR / (P + R) of two lists of words as multisets; 0 when they share none."""
    shared = sum((Counter(said) & Counter(gold)).values())
    return 2 * shared / (len(said) + len(gold)) if shared else 0.0


def normal_text(text: str, articles: bool = False) -> str:
    """Compatible characters made one, as `characters.plain` does; case, punctuation (but for the minus and the point of
    a number, and the sharp of C#), spaces too many, commas between thousands and, if asked, `articles` dropped.
    """
    text = _APART.sub(lambda found: unicodedata.normalize("NFKC", found[0]), plain(plain(text).casefold()))
    text = _MINUS.sub("\u2212", text)  # a sign of mathematics, which is no punctuation; so are those below
    text = _GROUPS.sub(lambda found: found[0].replace(",", ""), _POINT.sub("\u22c5", text))
    text = re.sub(r"(?<=[a-z])#", "\u266f", text)
    return " ".join(word for word in text.translate(_SPACED).split() if not (articles and word in _ARTICLES))


class _Spaced(dict[int, int]):
    """A table for `str.translate` that learns each character when it first sees it."""

    def __missing__(self, code: int) -> int:
        self[code] = ord(" ") if unicodedata.category(chr(code))[0] in "PZC" else code
        return self[code]


_SPACED = _Spaced()


def _answer(completion: str) -> str:
    found = final_answer(completion, longest=LONGEST)
    return completion if found is None else found


def _golds(answer: Any) -> list[str]:
    golds = list(answer) if isinstance(answer, (list, tuple)) else [answer]
    texts = [str(gold) for gold in golds if isinstance(gold, (str, int, float)) and not isinstance(gold, bool)]
    if not texts or len(texts) != len(golds) or not all(normal_text(text) for text in texts):
        raise ValueError(f"the gold answer {answer!r:.80} is not a text with words in it, or a list of such texts")
    return texts
