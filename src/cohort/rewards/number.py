"""Is the final answer the right number? Exact rational comparison, at a cost that no text can drive up.

Where the answer is looked for, first match wins:

1. `<answer> ... </answer>`. There must be exactly one pair: a text that offers two answers offers none.
2. the last `\\boxed{ ... }`
3. the rest of the line after the last `####`, as in GSM8K
4. with `last_number`, the last number of the text

A form that is there but holds no number is a wrong answer; the next form is not tried, or a text could bet on
several. The answer is one number: `1,234`, `-3/4`, `\\frac{3}{4}`, `$72.00`, `72%`, `x = 72`, `72 apples`. A sum, a
list, a root or "5 thousand" is not. `%` and currency are dropped, so 72% equals 72 and not 0.72.
"""

from __future__ import annotations

import math
import numbers
import re
from collections import deque
from fractions import Fraction
from typing import Any

__all__ = ["exact_number", "final_answer", "parse_number"]

_LONGEST_ANSWER = 200  # characters; more is an essay, not an answer
_LONGEST_NUMBER = 60  # characters
_LARGEST_EXPONENT = 300

# No quantifier is nested in another and nothing must follow, so matching is linear in the text.
_DIGITS = r"(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_IN_TEXT = re.compile(rf"(?:(?<![\w)])-)?{_DIGITS}(?:/{_DIGITS})?")
_ANSWER = re.compile(
    r"(?:[A-Za-z][A-Za-z ]{0,60}(?:=|:|(?<= )is ))?\s*"  # x =    Total:    The answer is
    r"(?:(?P<sign>[-+])\s?[$€£¥]?|[$€£¥]?\s?(?P<late_sign>-)?)\s?"  # -5    -$5    $-5
    rf"(?P<number>{_DIGITS}(?:\s?/\s?{_DIGITS})?)"
    r"\s*[$%€£¥]*(?P<unit>[^0-9]{0,60})"
)
_GROUPED = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+")
_MAGNITUDES = ("hundred", "hundreds", "thousand", "thousands", "k", "million", "millions", "billion", "bn", "trillion")
_OPERATIONS = ("dozen", "dozens", "half", "squared", "cubed", "pi", "π", "or", "and", "to", "x", "y", "z", "n", "i")
_CHANGES_THE_VALUE = frozenset((*_MAGNITUDES, *_OPERATIONS))


def exact_number(completion: str, answer: Any, last_number: bool = False) -> float:
    """1 if the final answer of `completion` equals the gold number `answer` exactly, else 0.

    The gold answer is a number or a text that holds one in any of the forms above, a whole GSM8K solution included.
    Raises ValueError if it does not: that is a mistake in the data, not a wrong completion.
    """
    gold = _gold(answer)
    found = final_answer(completion)
    if found is not None:
        return float(parse_number(found) == gold)
    return float(last_number and _last_number(completion) == gold)


def final_answer(text: str) -> str | None:
    """The text of the final answer: "" if it is marked but unusable, None if the text marks no answer."""
    opening, closing = text.count("<answer>"), text.count("</answer>")
    if opening or closing:
        start, end = text.find("<answer>") + len("<answer>"), text.find("</answer>")
        inside = text[start:end] if opening == closing == 1 and start <= end else ""
        return _boxed(inside) if "\\boxed{" in inside else inside
    if "\\boxed{" in text:
        return _boxed(text)
    if "####" in text:
        line = text[text.rindex("####") + 4 :].lstrip(" \t")
        return line[: _LONGEST_ANSWER + 1].partition("\n")[0]
    return None


def parse_number(answer: str) -> Fraction | None:
    """The number that `answer` states, or None if it does not state exactly one."""
    if len(answer) > _LONGEST_ANSWER:
        answer = answer.strip()
        if len(answer) > _LONGEST_ANSWER:
            return None
    match = _ANSWER.fullmatch(_without_markup(answer))
    if match is None or not _is_unit(match["unit"]):
        return None
    value = _fraction(match["number"])
    return -value if value is not None and "-" in (match["sign"], match["late_sign"]) else value


def _gold(answer: Any) -> Fraction:
    value = None
    if isinstance(answer, str):
        found = final_answer(answer)
        value = parse_number(answer if found is None else found)
    elif isinstance(answer, numbers.Rational) and not isinstance(answer, bool):
        value = Fraction(int(answer.numerator), int(answer.denominator))
    elif isinstance(answer, numbers.Real) and not isinstance(answer, bool) and math.isfinite(answer):
        value = Fraction(str(answer))  # as it is written: 0.1 is 1/10
    if value is None:
        raise ValueError(f"the gold answer {str(answer)[:80]!r} is not a number; exact_number needs one in every row")
    return value


def _boxed(text: str) -> str:
    """What the last \\boxed{} holds, or "" if it is not closed within the length of an answer."""
    start = text.rindex("\\boxed{") + len("\\boxed{")
    depth = 1
    for index, character in enumerate(text[start : start + _LONGEST_ANSWER], start):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[start:index]
    return ""


def _without_markup(text: str) -> str:
    """LaTeX and markdown around a number, written plainly. Only short texts come here."""
    text = text.replace("\u2212", "-").replace("{,}", ",").replace("\\%", "%").replace("\\$", "$")
    text = re.sub(r"(?<=[0-9])\\[,!](?=[0-9]{3})", "", text)
    text = re.sub(r"\\[dt]?frac\{([-0-9.,]+)\}\{([0-9.,]+)\}", r"\1/\2", text)
    text = re.sub(r"\\(?:text|mathrm|mbox)\{([^{}]*)\}", r" \1 ", text)
    text = re.sub(r"\\[()\[\]]", " ", text)
    return text.strip().strip("*_`$ \t\r\n")


def _is_unit(text: str) -> bool:
    """Whether what follows the number leaves it alone: a full stop, or words such as `apples` or `km/h`."""
    if not all(character.isalpha() or character in " ./°'\"*_$\t\r\n" for character in text):
        return False
    return not _CHANGES_THE_VALUE.intersection(text.lower().replace("/", " ").replace(".", " ").split())


def _last_number(text: str) -> Fraction | None:
    matches = deque(_IN_TEXT.finditer(text.replace("\u2212", "-")), maxlen=1)
    if not matches:
        return None
    last = matches[0]
    neighbours = last.string[max(last.start() - 1, 0) : last.start()] + last.string[last.end() : last.end() + 1]
    return None if any(character.isnumeric() for character in neighbours) else _fraction(last[0])


def _fraction(token: str) -> Fraction | None:
    top, slash, bottom = (part.strip() for part in token.partition("/"))
    value = _decimal(top)
    if not slash or value is None:
        return value
    divisor = _decimal(bottom)
    return value / divisor if divisor else None


def _decimal(token: str) -> Fraction | None:
    token = token.rstrip(",")
    if len(token) > _LONGEST_NUMBER:
        return None
    mantissa, _, exponent = token.lower().partition("e")
    if exponent and abs(int(exponent)) > _LARGEST_EXPONENT:
        return None
    whole = mantissa.lstrip("-").partition(".")[0]
    if "," in whole and not _GROUPED.fullmatch(whole):
        return None
    return Fraction(token.replace(",", ""))
