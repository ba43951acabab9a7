"""Language consistency, DeepSeek-R1's reward (arXiv 2501.12948, section 2.3.2):

    R = number of words in the target language / number of words        of the chain of thought

The paper does not say how words are told apart; here a word is one of the target language if

1. it is written in one of the language's scripts, and
2. its sentence is not clearly in another language: the classifier py3langid does not give another one 30 % or more and
   this one less than 1 %.

So Chinese in English is found word by word, and Spanish in English sentence by sentence: a single foreign word of the
same script, or a sentence of two or three words, counts as the target language. Close relatives (Danish and Norwegian,
Czech and Slovak ...) count as one. A word is a run of letters; in scripts without spaces (Chinese, Japanese, Thai ...)
it is a character. Formulas, code, URLs, tags and single Latin letters are not counted, unless they hide other scripts.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import regex

from cohort.rewards.calling.per_row import for_row
from cohort.rewards.items import Scored
from cohort.rewards.marks import checked_by
from cohort.rewards.verifiers.language.prose import prose
from cohort.rewards.verifiers.language.scripts import NEAR, SCRIPTS, SHARED
from cohort.wording import did_you_mean

__all__ = ["language", "language_share"]

_CLEARLY, _HARDLY = 0.3, 0.01  # shares of the probability that the classifier spreads over its languages
_FEWEST = 3  # words of a sentence whose language can be told
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_WORD = regex.compile(rf"[{_UNSPACED}]|[[\p{{L}}]--[{_UNSPACED}]][[\p{{L}}\p{{M}}'\u2019-]--[{_UNSPACED}]]*", regex.V1)
_SENTENCE = regex.compile(r"[^\n.!?\u3002\uff01\uff1f]+(?:[.!?]+(?=\S)[^\n.!?\u3002\uff01\uff1f]*)*")


def check_language(row: Mapping[str, Any], language: str | None = None, column: str | None = None) -> None:
    """Raise ValueError if there is no target language for a row, or one that is not known."""
    _known(for_row("language", language, column, row))


@checked_by(check_language)
def language(
    completion: str,
    row: Mapping[str, Any],
    language: str | None = None,
    column: str | None = None,
    part: str = "think",
) -> Scored:
    """The share of words in the target language, 0 to 1; 0 (label "no_words") for a text without words.

    `language` is the ISO 639-1 code of the target language for all rows, or `column` names the column that holds each
    row's own. `part` "think" looks at what comes before the last </think>, if there is one; "all" at the whole text.
    """
    target = _known(for_row("language", language, column, row))
    if part not in ("think", "all"):
        raise ValueError(f'part is "think" or "all", not {part!r}')
    text = completion.rpartition("</think>")[0] if part == "think" and "</think>" in completion else completion
    share = language_share(text, target)
    return Scored(0.0, "no_words") if share is None else Scored(share)


def language_share(text: str, target: str) -> float | None:
    """Words of `text` in the language `target` / all words; None if there are none."""
    fits = _script_of(target)
    total = right = 0
    for match in _SENTENCE.finditer(prose(text)):
        sentence = match[0]
        words = [word for word in _WORD.findall(sentence) if len(word) > 1 or not word.isascii()]
        fitting = sum(fits.match(word) is not None for word in words)
        total += len(words)
        if fitting and not (len(words) >= _FEWEST and _is_clearly_another(sentence, target)):
            right += fitting
    return right / total if total else None


def _is_clearly_another(sentence: str, target: str) -> bool:
    if not SHARED.intersection(SCRIPTS.get(target, ("Latin",))):
        return False
    with_kana = _script_of("ja") if "Han" in SCRIPTS.get(target, ()) else _script_of(target)
    alike = _WORD.sub(lambda match: match[0] if with_kana.match(match[0]) else " ", sentence)
    found, probability = _classifier().classify(alike)
    if found == target or probability < _CLEARLY or any({found, target} <= family for family in NEAR):
        return False
    return dict(_classifier().rank(alike))[target] < _HARDLY


@lru_cache(maxsize=1)
def _classifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # brings numpy: other rewards need not wait for it

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@lru_cache(maxsize=32)
def _script_of(target: str) -> regex.Pattern[str]:
    return regex.compile("[" + "".join(rf"\p{{{name}}}" for name in SCRIPTS.get(target, ("Latin",))) + "]")


@lru_cache(maxsize=256)
def _known(target: Any) -> str:
    languages = set(_classifier().labels)
    if not isinstance(target, str) or target not in languages:
        near = did_you_mean(str(target), sorted(languages))
        raise ValueError(f'language is an ISO 639-1 code such as "en", not {target!r:.40}{near}')
    return target
