"""Multiple choice: one letter, that of the right option.

The answer is looked for as `verifiers.final_answer` says; a text that marks none answers in its last sentence of the
form "the answer is (B)", or is the letter as a whole. `B`, `(B)`, `**B**`, `B. Paris` and `\\text{B}` are B. An
answer with the letters of two options is none, so listing them all pays nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cohort.rewards.items import Scored
from cohort.rewards.marks import checked_by, stated_by
from cohort.rewards.verifiers.characters import plain
from cohort.rewards.verifiers.final_answer import LONGEST_ANSWER, final_answer
from cohort.rewards.verifiers.text import normal_text

__all__ = ["check_choice", "choice"]

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SAID = re.compile(r"\b(?:answer|option|choice)(?:\s+is\b\s*:?|\s*:)\s*", re.IGNORECASE)
_MARKUP = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boxed)\s*\{([^{}]*)\}")
_LETTER = re.compile(r"[(\[{]?([A-Za-z])(?:[)\]}.:,]+(.*)|(?:\s*[-\u2013]\s|\s*=\s)(.*))?", re.DOTALL)
# (B) is wrong, (B) cannot be the right one; not the text of an option, such as "is not a mammal"
_DENIED = re.compile(
    r"(?:is|was|seems|looks)\b[^.]*\b(?:wrong|incorrect|false)\b"
    r"|(?:(?:is|was|can)(?:not| not|n['\u2019]t)|can['\u2019]t)\b[^.]*\b(?:right|correct|true|answer|it)\b",
    re.IGNORECASE,
)


def check_choice(
    answer: Any, row: Mapping[str, Any], letters: str = "ABCD", options: str | None = None, first: int = 0
) -> str:
    """The letter of the right option of a row. Raises ValueError if `answer` names none of its options."""
    known, texts = _options(row, letters, options)
    if not known or len(set(known)) != len(known) or any(letter not in _ALPHABET for letter in known):
        raise ValueError(f'letters are different capital letters such as "ABCD", not {letters!r}')
    if isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer - first < len(known):
            raise ValueError(f"the gold answer {answer} is not the number of an option: {len(known)}, from {first} on")
        return known[answer - first]
    chosen = _chosen(answer, known, texts) if isinstance(answer, str) else None
    if chosen is not None and (other := _option(answer, known, texts) or chosen) != chosen:
        raise ValueError(
            f"the gold answer {answer!r:.80} is the letter of one option and the text of another ({other}): "
            "give the number of the right option"
        )
    if chosen is None:
        raise ValueError(f"the gold answer {answer!r:.80} is none of the options {', '.join(known)}")
    return chosen


@stated_by(check_choice)
@checked_by(check_choice)
def choice(
    completion: str,
    answer: Any,
    row: Mapping[str, Any],
    letters: str = "ABCD",
    options: str | None = None,
    first: int = 0,
) -> Scored:
    """1 if the completion answers with the letter of the right option, else 0.

    Labels: right, wrong, no_answer, unparsed.
    `letters` are those of the options. `options` names a column with the options' texts (a list): there are then so
    many letters, and the answer and the gold answer may be an option's text. Else the gold answer is a letter, or the
    number of an option, counted from `first`. Raises ValueError for a gold answer that is neither.
    """
    gold = check_choice(answer, row, letters, options, first)
    known, texts = _options(row, letters, options)
    found = final_answer(completion)
    if found is None:
        tail = plain(completion[-5000:])
        said = [match.end() for match in _SAID.finditer(tail)]
        if not said and len(completion) > LONGEST_ANSWER:
            return Scored(0.0, "no_answer")
        found = tail[said[-1] :].partition("\n")[0] if said else completion
    chosen = _chosen(found, known, texts)
    if chosen is None:
        return Scored(0.0, "unparsed")
    return Scored(float(chosen == gold), "right" if chosen == gold else "wrong")


def _chosen(text: str, known: str, texts: Sequence[str]) -> str | None:
    """The letter that a text chooses, None if it chooses none, or several."""
    text = _MARKUP.sub(r"\1", plain(text)).strip().strip("*_`$\"' \t\r\n").rstrip(".")
    if text in known and len(text) == 1:
        return text
    if (by_text := _option(text, known, texts)) is not None:
        return by_text
    match = _LETTER.fullmatch(text)
    letter = match[1].upper() if match else ""
    if match is None or letter not in known:
        return None
    rest = (match[2] or match[3] or "").strip(" .*_`)")
    if _DENIED.match(rest):
        return None
    if texts:
        return letter if not rest or normal_text(rest) == normal_text(texts[known.index(letter)]) else None
    listed = re.findall(r"(?:^|[\s,;/])[(\[]([A-Za-z])(?:[)\]]|$)", rest)
    if any(other in known and other != letter for other in map(str.upper, listed)):
        return None
    rest = rest.upper() if match[1].islower() else rest  # next to a capital letter, "a" is an article
    others = re.findall(r"(?<![A-Za-z])[A-Z](?![A-Za-z])", rest)
    return None if any(other in known and other != letter for other in others) else letter


def _option(text: str, known: str, texts: Sequence[str]) -> str | None:
    """The letter of the one option whose text this is: as it is written, or else as `normal_text` has it."""
    for form in (lambda text: plain(text).strip(), normal_text):
        found = [letter for letter, option in zip(known, texts) if form(option) == form(text)]
        if len(found) == 1:
            return found[0]
    return None


def _options(row: Mapping[str, Any], letters: str, column: str | None) -> tuple[str, list[str]]:
    """The letters of the options, and their texts where a column has them."""
    if column is None:
        return letters, []
    options = row.get(column)
    if not isinstance(options, (list, tuple)) or not 2 <= len(options) <= len(_ALPHABET):
        raise ValueError(f"the column '{column}' holds no list of 2 to {len(_ALPHABET)} options, but {options!r:.80}")
    return _ALPHABET[: len(options)], [str(option) for option in options]
