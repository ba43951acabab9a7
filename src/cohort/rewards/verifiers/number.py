"""Is the final answer the right number? Exact rational comparison, at a cost that no text can drive up.

The answer is looked for as `verifiers.final_answer` says; with `last_number`, in a text that marks none it is the last
number. It is one number: `1,234`, `-3/4`, `\\frac{3}{4}`, `1 1/2`, `$72.00`, `72%`, `x = 72`, `72 apples`, in
digits of any script and width. A sum, a list, a root, "5 thousand" or "3 halves" is not. `%` and currency are dropped,
so 72% equals 72 and not 0.72.
"""

from __future__ import annotations

import math
import numbers
import re
import unicodedata
from fractions import Fraction
from typing import Any

from cohort.rewards.items import Labelled
from cohort.rewards.marks import checked_by
from cohort.rewards.verifiers.characters import plain
from cohort.rewards.verifiers.final_answer import DIGITS, LONGEST_ANSWER, final_answer, last_number_of
from cohort.rewards.verifiers.words import UNIT_LETTERS, changes_the_value, is_unit_word

__all__ = ["exact_number", "final_answer", "parse_number"]

_LONGEST_NUMBER = 60  # characters
_LARGEST_EXPONENT = 300

_SIGN = r"(?:[-+]|(?i:minus|negative)\s)"
_MONEY = r"(?:[$€£¥₹₩₽#]|USD|EUR|GBP|INR|CNY|Rs\.?|US\$)"
_TOKEN = rf"(?:[0-9]{{1,3}}(?:[ '][0-9]{{3}})+(?![0-9])(?:\.[0-9]+)?|{DIGITS})"
_ANSWER = re.compile(
    r"(?:[A-Za-z][A-Za-z ]{0,60}(?:=|:|(?<= )is ))?\s*[=≈]?\s*"  # x =    Total:    The answer is
    rf"(?:(?P<sign>{_SIGN})\s?{_MONEY}?|{_MONEY}?\s?(?P<late_sign>-)?)\s?"  # -5    -$5    $-5    minus 5
    rf"(?:(?P<whole>[0-9]{{1,30}})\s(?P<top>[0-9]{{1,30}})\s?/\s?(?P<bottom>[0-9]{{1,30}})"  # 1 1/2
    rf"|(?P<number>{_TOKEN}(?:\s?/\s?-?{_TOKEN})?)"
    r"(?:\s?(?:\\times|\\cdot|[*\u00d7·x])\s?10\s?\^\s?(?:\{\s?(?P<power>-?[0-9]{1,3})\s?\}|(?P<digit>[0-9]+)))?)"
    r"(?:\s?[$%€£¥])*(?P<unit>[^0-9]{0,60})"
)
_AREA = re.compile(
    r"(?<![A-Za-z])((?:mm|cm|km|m|ft|in|inches|feet|meters|metres|yards|miles|units) *)(?:\^ *\{?[23]\}?|[²³])"
)
_GROUPED = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+")
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e\u2189]")
_RAISED = re.compile("(?<=10)[\u2070\u00b9\u00b2\u00b3\u2074-\u207b]+")
_SMALL = frozenset(("of", "in", "a", "an", "per"))


def check_number(answer: Any) -> Fraction:
    """The gold number of a row. Raises ValueError if `answer` holds none."""
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


@checked_by(check_number)
def exact_number(completion: str, answer: Any, last_number: bool = False) -> Labelled:
    """1 if the final answer of `completion` equals the gold number `answer` exactly, else 0.

    Labels: right, wrong, unparsed (the answer is not one number), no_answer.

    The gold answer is a number or a text that holds one in any of the forms above, a whole GSM8K solution included.
    Raises ValueError if it does not: that is a mistake in the data, not a wrong completion.
    """
    gold = check_number(answer)
    found = final_answer(completion)
    if found is None:
        last = last_number_of(completion) if last_number else None
        if last is None:
            return Labelled(0.0, "no_answer")
        value = _fraction(last)
    else:
        value = parse_number(found)
    if value is None:
        return Labelled(0.0, "unparsed")
    return Labelled(float(value == gold), "right" if value == gold else "wrong")


def parse_number(answer: str) -> Fraction | None:
    """The number that `answer` states, or None if it does not state exactly one."""
    if len(answer) > LONGEST_ANSWER:
        answer = answer.strip()
        if len(answer) > LONGEST_ANSWER:
            return None
    match = _ANSWER.fullmatch(_without_markup(answer))
    if match is None or not _is_unit(match["unit"]):
        return None
    value = _fraction(match["number"]) if match["number"] else _mixed(match["whole"], match["top"], match["bottom"])
    if value is not None and (power := match["power"] or match["digit"]):
        value = value * Fraction(10) ** int(power) if len(power) < 4 and "/" not in match["number"] else None
    return -value if value is not None and ((match["sign"] or "+").strip() != "+" or match["late_sign"]) else value


def _without_markup(text: str) -> str:
    """LaTeX, markdown and brackets around a number, written plainly. Only short texts come here."""
    text = plain(text).replace("\\%", "%").replace("\\$", "$").replace("\\approx", "≈").replace("\u2044", "/")
    text = _VULGAR.sub(lambda m: " " + unicodedata.normalize("NFKC", m[0]).replace("\u2044", "/"), text)
    text = _RAISED.sub(lambda m: f"^{{{unicodedata.normalize('NFKC', m[0])}}}".replace("\u2212", "-"), text)
    text = re.sub(r",\\!\s*|\{,\}", ",", text)
    text = re.sub(r"(?<=[0-9])\\[,!](?=[0-9]{3})", "", text)
    text = re.sub(r"\\[dt]?frac\s*\{\s*(-?[0-9.,]+)\s*\}\s*\{\s*(-?[0-9.,]+)\s*\}", r" \1/\2", text)
    text = re.sub(r"\\[dt]?frac\s*([0-9])\s*([0-9])(?![0-9.])", r" \1/\2", text)
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?", "°", text)
    text = re.sub(r"\\(?:text|mathrm|mbox)\{([^{}]*)\}", r" \1 ", text)
    text = re.sub(r"\\[()\[\],;:! ]|~", " ", text)
    text = re.sub(r"(?<=[0-9])  +(?=[0-9])|(?<=-) +(?=[0-9])", " ", text.strip().strip("*_`$ \t\r\n").rstrip(";?:"))
    text = re.sub(r"\A\s*\(([^()]*)\)[\s.,]*\Z", r"\1", text)
    return _AREA.sub(r"\1", text.strip())


def _is_unit(text: str) -> bool:
    """Whether what follows the number leaves it alone: a full stop, or words such as `apples` or `km/h`."""
    if not all(character.isalpha() or character in " ./°'\"*_$,\t\r\n" for character in text):
        return False
    words = re.findall(r"[^\W\d_]+", text)
    if not words or changes_the_value(text):
        return not words
    spaced = text[0].isspace()
    first = words[0]
    return is_unit_word(first, spaced) or first in UNIT_LETTERS or (spaced and first in _SMALL and len(words) > 1)


def _mixed(whole: str, top: str, bottom: str) -> Fraction | None:
    """1 1/2 as three halves. What is no proper fraction is a second number."""
    return int(whole) + Fraction(int(top), int(bottom)) if int(top) < int(bottom) else None


def _fraction(token: str) -> Fraction | None:
    top, slash, bottom = (part.strip() for part in token.partition("/"))
    value = _decimal(top)
    if not slash or value is None:
        return value
    divisor = _decimal(bottom)
    return value / divisor if divisor else None


def _decimal(token: str) -> Fraction | None:
    token = re.sub(r"[ ']", "", token.rstrip(","))
    if len(token) > _LONGEST_NUMBER:
        return None
    mantissa, _, exponent = token.lower().partition("e")
    if exponent and abs(int(exponent)) > _LARGEST_EXPONENT:
        return None
    whole = mantissa.lstrip("-").partition(".")[0]
    if "," in whole and not _GROUPED.fullmatch(whole):
        return None
    return Fraction(token.replace(",", ""))
