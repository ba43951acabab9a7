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

from cohort.rewards.items import Scored
from cohort.rewards.marks import checked_by
from cohort.rewards.verifiers.values import for_row
from cohort.wording import did_you_mean

__all__ = ["check_language", "language", "language_share", "prose"]

# The scripts of languages by their ISO 639-1 codes. Those that are not listed are written in Latin letters.
_SCRIPTS: Mapping[str, str] = {
    "am": "Ethiopic", "ar": "Arabic", "as": "Bengali", "be": "Cyrillic", "bg": "Cyrillic", "bn": "Bengali",
    "dz": "Tibetan", "el": "Greek", "fa": "Arabic", "gu": "Gujarati", "he": "Hebrew", "hi": "Devanagari",
    "hy": "Armenian", "ja": "Han Hiragana Katakana", "ka": "Georgian", "kk": "Cyrillic", "km": "Khmer",
    "kn": "Kannada", "ko": "Hangul", "ku": "Arabic Latin", "ky": "Cyrillic", "lo": "Lao", "mk": "Cyrillic",
    "ml": "Malayalam", "mn": "Cyrillic", "mr": "Devanagari", "ne": "Devanagari", "or": "Oriya", "pa": "Gurmukhi",
    "ps": "Arabic", "ru": "Cyrillic", "si": "Sinhala", "sr": "Cyrillic Latin", "ta": "Tamil", "te": "Telugu",
    "th": "Thai", "ug": "Arabic", "uk": "Cyrillic", "ur": "Arabic", "zh": "Han",
}  # fmt: skip
# Scripts of several languages: only there a sentence can be in another language although its letters fit.
_SHARED = frozenset(("Latin", "Cyrillic", "Arabic", "Devanagari", "Bengali", "Han"))

# Too close for a short sentence to tell them apart.
_NEAR = tuple(set(family.split()) for family in ("da nb nn no", "bs hr sr", "cs sk", "gl pt", "id jv ms", "xh zu"))

_CLEARLY, _HARDLY = 0.3, 0.01  # shares of the probability that the classifier spreads over its languages
_FEWEST = 3  # words of a sentence whose language can be told
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_WORD = regex.compile(rf"[{_UNSPACED}]|[[\p{{L}}]--[{_UNSPACED}]][[\p{{L}}\p{{M}}'\u2019-]--[{_UNSPACED}]]*", regex.V1)
_SENTENCE = regex.compile(r"[^\n.!?\u3002\uff01\uff1f]+(?:[.!?]+(?=\S)[^\n.!?\u3002\uff01\uff1f]*)*")
_OPENING = regex.compile(r"```|`|\$\$|\$|\\\(|\\\[")
_CLOSING = {"```": "```", "`": "`", "$$": "$$", "$": "$", "\\(": "\\)", "\\[": "\\]"}
_IN_ONE_LINE = ("`", "$")
_WORDLESS = regex.compile(r"\\[A-Za-z]+|https?://\S+|</?[A-Za-z_]{1,20}>")
_FOREIGN = regex.compile(r"[[\p{L}]--[\p{Latin}\p{Greek}]]+", regex.V1)


def check_language(row: Mapping[str, Any], language: str | None = None, column: str | None = None) -> str:
    """The target language of a row. Raises ValueError if there is none, or one that is not known."""
    target = for_row("language", language, column, row)
    if not isinstance(target, str) or target not in _languages():
        near = did_you_mean(str(target), sorted(_languages()))
        raise ValueError(f'language is an ISO 639-1 code such as "en", not {target!r:.40}{near}')
    return target


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
    target = check_language(row, language, column)
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
    if not _SHARED.intersection(_scripts(target)):
        return False
    with_kana = _script_of("ja") if "Han" in _scripts(target) else _script_of(target)
    alike = _WORD.sub(lambda match: match[0] if with_kana.match(match[0]) else " ", sentence)
    found, probability = _classifier().classify(alike)
    if found == target or probability < _CLEARLY or any({found, target} <= family for family in _NEAR):
        return False
    return dict(_classifier().rank(alike))[target] < _HARDLY


@lru_cache(maxsize=1)
def _classifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # brings numpy: other rewards need not wait for it

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _scripts(target: str) -> list[str]:
    return _SCRIPTS.get(target, "Latin").split()


@lru_cache(maxsize=32)
def _script_of(target: str) -> regex.Pattern[str]:
    return regex.compile("[" + "".join(rf"\p{{{name}}}" for name in _scripts(target)) + "]")


@lru_cache(maxsize=1)
def _languages() -> frozenset[str]:
    return frozenset(map(str, _classifier().labels))


def prose(text: str) -> str:
    """`text` without what stands between ``` ` $ $$ \\( or \\[ and its end, without commands, URLs and tags.

    Letters of other scripts than Latin and Greek stay even there, so that nothing can be hidden in a formula. A mark
    that is never closed is text. The cost is linear in the text.
    """
    parts: list[str] = []
    never_closed: set[str] = set()
    at = 0
    for match in _OPENING.finditer(text):
        mark = match[0]
        if match.start() < at or mark in never_closed:
            continue
        end = _end(text, mark, match.end())
        if end < 0:
            if mark not in _IN_ONE_LINE:
                never_closed.add(mark)
            continue
        parts += [text[at : match.start()], *_FOREIGN.findall(text, match.end(), end)]
        at = end + len(_CLOSING[mark])
    return _WORDLESS.sub(" ", " ".join([*parts, text[at:]]))


def _end(text: str, mark: str, start: int) -> int:
    """Where the closing mark is, -1 if there is none."""
    end = text.find(_CLOSING[mark], start)
    if end >= 0 and mark in _IN_ONE_LINE and text.find("\n", start, end) >= 0:
        return -1
    first, last, after = text[start : start + 1], text[end - 1 : end], text[end + 1 : end + 2]
    if mark == "$" and (first.isspace() or last.isspace() or after.isdigit()):
        return -1  # two prices, not a formula
    return end
