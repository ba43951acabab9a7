"""Answers written as mathematics: one expression out of a marked answer, and what is no answer by its form alone.

Nothing here computes. Every pattern is linear, and texts are as short as an answer may be.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from fractions import Fraction

from cohort.rewards.verifiers.number import CHANGES_THE_VALUE

LONGEST_MATH = 1000  # characters of an answer

_MATH = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$(.+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_SIGNS = {
    "\u2212": "-", "\u2013": "-", "\u00d7": r"\times ", "·": r"\cdot ", "÷": r"\div ", "π": r"\pi ", "∞": r"\infty ",
    "°": r"^\circ ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∩": r"\cap ", "\u222a": r"\cup ",
    "∅": r"\emptyset ", "\u211d": r"\mathbb{R}", "∈": r"\in ", "∠": r"\angle ", "\u22c5": r"\cdot ",
    "\u2219": r"\cdot ", "\u2044": "/", "\u2215": "/", "→": r"\to ", "≈": r"\approx ",
}  # fmt: skip
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u207b\u207f]+")
_LOWERED = re.compile("[\u2080-\u2089]+")
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e\u2189]")  # one half, two thirds ...
_READ_LATER = "√∫∬∮∑∏∂⌊⌋⌈⌉"  # signs that are looked at below
_REPEATING = re.compile(r"(?<![0-9.])([0-9]{0,12})\.([0-9]{0,12})\\(?:overline|bar|dot)\s*\{([0-9]{1,12})\}")
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_LETTER = r"\\?[A-Za-z]+(?:_\{?\w+\}?)?"
_NAME = (
    rf"(?:{_LETTER}'{{0,2}}(?:\s?\([\w,\s]{{1,9}}\))?|\\(?:angle|overline)\s?\{{?[A-Z]{{1,4}}\}}?"
    rf"|\({_LETTER}(?:\s*,\s*{_LETTER}){{1,4}}\)|\\(?:text|mathrm)\s*\{{[A-Za-z ]{{1,40}}\}})"
)
_ASSIGNMENT = re.compile(rf"\s*({_NAME}(?:\s*[-+]\s*{_NAME}){{0,3}})\s*(?:=|\\in(?![A-Za-z]))\s*(.+)", re.DOTALL)
_UNDONE = re.compile(
    r"\\(?:i{0,3}nt|oint|sum|prod|coprod|lim(?:sup|inf)?|max|min|sup|inf|gcd|lcm|det|partial|nabla|bmod|pmod|mod"
    r"|lfloor|lceil)(?![A-Za-z])|\\frac\s*\{\s*d\s*\}\s*\{\s*d|[∫∬∮∑∏∂⌊⌈]"
)
_SEVERAL = re.compile(r"[,;]|\\(?:pm|mp|lor|land|cup|vee|wedge)(?![A-Za-z])|\b(?:or|and)\b")
_OR = re.compile(r"\s*(?:[,;]|\\lor(?![A-Za-z])|(?:\\text\s*\{)?\s*\b(?:or|and)\b\s*\}?)\s*")
_RELATION = re.compile(r"=|[<>]|\\(?:leq?|geq?|lt|gt|neq?|equiv|approx|sim|to|in)(?![A-Za-z])")
_INEQUALITY = re.compile(r"[<>]|\\(?:leq?|geq?|lt|gt)(?![A-Za-z])")
_INTERVAL = re.compile(r"\s*(?:\[.*[\])]|\(.*\]|\(.*\\infty.*\))\s*")
_NEUTRAL = re.compile(
    r"[+-]\s*0(?![\d.])|^\s*0\s*[+-]"  # x + 0
    r"|(?:\*|\\cdot|\\times)\s*1(?![\d.])|(?<![\d.])1\s*(?:\*|\\cdot|\\times)"  # 1 * x
    r"|\^\s*(?:1(?![\d.])|\{\s*1\s*\})|/\s*1(?![\d.])|\}\s*\{\s*1\s*\}"  # x^1, x/1
)
_SPACE = re.compile(r"(?<!\\)\\[,;:!> ]|(?<=[\w})])~(?=[A-Za-z\\])")
_WORDS = re.compile(
    r"\\(?:text|textbf|textit|textrm|mbox)\s*\{(?!\s*(?:and|or)?\s*\})[^{}]*\}(?:\s*\^\s*\{?-?[0-9]\}?)?"
)
_ARITHMETIC = re.compile(r"(?<=[\w})!%])\s*[-+*]|\\(?:cdot|times|div|[lr]?[vV]ert)(?![A-Za-z])|\|")
_OPERATION = re.compile(r"[/^!]|\\(?:[dt]?frac|sqrt|[dt]?binom|log|ln|exp|sin|cos|tan)")
_EXPONENT = re.compile(r"-?[0-9]{1,50}(?:\.[0-9]{1,50})?[eE][-+]?[0-9]{1,2}")
_TWO_NUMBERS = re.compile(r"(?<![_^0-9.])[0-9.]*[0-9]\s+[0-9]")  # but not \log_2 8
_SCIENTIFIC = re.compile(r"(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{\s*(-?[0-9]+)\s*\}|([0-9]))")
_VARIABLE = re.compile(
    r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])|\\(?:var)?(?:alpha|beta|gamma|delta|epsilon|zeta|eta|theta|kappa|lambda|mu|nu|xi"
    r"|pi|rho|sigma|tau|phi|chi|psi|omega)(?![A-Za-z])"
)
_WORDED = r"\\(?:text|textbf|textit|textrm|mathrm|mbox)\s*\{(?:[^{}0-9]|(?<=[A-Za-z^])[23])*\}"
_POWER = r"(?:\s*\^\s*\{?-?[0-9]\}?)?"
_UNITS = (
    "mm|cm|km|kg|ft|lb|yr|hr|mph|inch|feet|foot|yard|mile|meter|metre|liter|litre|gram|pound|second|minute|hour|day|week"
    "|month|year|degree|radian|unit|cent|dollar"
)
_UNIT = re.compile(
    rf"(?<=[\w)}}!%])\s*(?:{_WORDED}{_POWER}\s*/?\s*)+$"
    rf"|(?<=[\d)}}\s])(?:(?:square|cubic|sq\.?)\s)?\s*(?:{_UNITS})(?:s|es)?{_POWER}$"
)


def clean(text: str) -> str:
    """The one expression that `text` states, as LaTeX without delimiters; "" if it states none, or several."""
    text = text.strip()
    if not text or len(text) > LONGEST_MATH or any(_is_odd(character) for character in text):
        return ""
    text = _undelimited(_spelt(text).strip("*_` \t\r\n"))
    text = re.sub(r"√\s*(?:\(([^()]*)\)|(\d+|[A-Za-z]))", lambda m: rf"\sqrt{{{m[1] or m[2]}}}", text)
    text = re.sub(r"\\(?:left|right|displaystyle|limits|big|Big|bigg|Bigg)(?![A-Za-z])\s*(\.(?=\s|$))?", "", text)
    text = re.sub(r",\\!\s*|\{,\}", ",", text).replace(r"\$", "").replace("**", "^")
    text = text.replace(r"\langle", "(").replace(r"\rangle", ")")
    text = re.sub(r"(?<!\\)%", r"\%", text)
    if not re.match(r"\s*(?:[(\[]|\\\{)", text):  # 1,000 is a number, (1,000) a pair
        text = re.sub(r"(?<=[0-9])(?:,|\\[,! ])(?=[0-9]{3}(?![0-9]))", "", text)
    text = _SPACE.sub(" ", text)
    text = re.sub(r"\\[dtc]?frac\s*([0-9])\s+([0-9])(?![0-9])", r"\\frac{\1}{\2}", text)
    text = re.sub(r"(?<![0-9./])([0-9]+)\s+([0-9]+)\s*/\s*([0-9]+)", r"\1\\frac{\2}{\3}", text)  # 1 1/2
    text = re.sub(r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi ", text)
    text = _REPEATING.sub(_fraction_of, text).strip().rstrip(".,;:。 ").strip()
    if _EXPONENT.fullmatch(text):
        text = format(Decimal(text), "f")  # in LaTeX, 1e5 is a product with Euler's number
    return "" if _TWO_NUMBERS.search(text) or "$" in text or any(map(_is_unread, text)) else text


def as_word(text: str) -> str | None:
    """The words that an answer consists of, in lower case (`\\text{Even}`, `no solution`); None if it is none."""
    plain, marked = _TEXT.subn(r" \1 ", text)
    plain = " ".join(plain.replace("\\ ", " ").strip(" .()").casefold().split())
    if not re.fullmatch(r"[^\W\d_][^\W\d_'\u2019 -]*", plain):
        return None
    return plain if len(plain) >= 3 or (marked and len(plain) == 2) else None


def base_of(text: str) -> str | None:
    """The base that a numeral is written in: "8" for `12_8` and `12_{8}`."""
    match = re.search(r"[0-9]_\{?\s*([0-9]{1,2})\s*\}?", text)
    return match[1] if match else None


def is_finished(answer: str, gold: str, gold_is_number: bool) -> bool:
    """Whether `answer` is an answer by its form: worked out, and one, as far as `gold` is.

    It is not with an integral, sum, product, limit or derivative, with more equations or several values, with words
    inside, with something that adds nothing (+0), or with a variable, that the gold answer does not have. Where that is
    a number, it may be written with one power, root, fraction or the like: 3/4, 2^{10}, 5!.
    """
    if _UNDONE.search(answer) and not _UNDONE.search(gold):
        return False
    is_range = bool(_INTERVAL.fullmatch(gold) and _INEQUALITY.search(answer))  # x > 2 for (2, \infty)
    if len(_RELATION.findall(answer)) > (2 if is_range else len(_RELATION.findall(gold))):
        return False
    if _SEVERAL.search(answer) and not (_SEVERAL.search(gold) or _INEQUALITY.search(gold)):
        return False
    if _are_worded(answer) and not _are_worded(gold):
        return False
    plain = _TEXT.sub(" ", answer)
    if len(_variables(plain) - _variables(_TEXT.sub(r" \1 ", gold))) > is_range:
        return False
    plain = _SCIENTIFIC.sub("", plain)
    if _NEUTRAL.search(plain) and not _NEUTRAL.search(gold):
        return False
    return not gold_is_number or (not _ARITHMETIC.search(plain) and len(_OPERATION.findall(plain)) <= 1)


def without_name(answer: str, gold: str) -> str:
    """`x = 5` as `5`, and `x = 2 or x = 3` as `2, 3`, where the gold answer is no equation."""
    if _RELATION.search(gold):
        return answer
    parts = [_ASSIGNMENT.fullmatch(part) for part in _OR.split(answer)] if _SEVERAL.search(gold) else []
    names = {re.sub(r"_.*", "", part[1]) if part else None for part in parts}
    if len(parts) > 1 and len(names) == 1 and None not in names:
        return ", ".join(part[2] for part in parts if part)
    match = _ASSIGNMENT.fullmatch(answer)
    return match[2] if match else answer


def is_product(text: str) -> bool:
    """Whether letters behind a number are factors: those of `3t` and `2ab`, but not of `3 t`, `3cm` and `3 apples`."""
    found = re.fullmatch(r"[^A-Za-z]*[0-9]([A-Za-z]{1,2})", text)
    return found is not None and re.fullmatch(_UNITS, found[1]) is None


def without_unit(text: str) -> str:
    """LaTeX without the unit at its end: any words in \\text{}, or a common name such as `cm`, with a power or without.

    `2\\sqrt{3}\\text{ cm}^2` is 2\\sqrt{3}, but `2ab` is not 2. Words that change the value ("million"), and a text
    that is nothing else, stay.
    """
    found = _UNIT.search(text)
    if found is None or not CHANGES_THE_VALUE.isdisjoint(re.findall(r"[a-z]{2,}", found[0].lower())):
        return text
    rest = text[: found.start()].strip()
    return rest if re.sub(_WORDED, "", rest).strip() else text


def _are_worded(text: str) -> bool:
    """Whether words stand between two pieces of mathematics: `5\\text{ perhaps }7`, but not `5\\text{ cm}^2`."""
    return sum(any(map(str.isalnum, piece)) for piece in _WORDS.split(text)) > 1


def _variables(text: str) -> set[str]:
    return {name.lower() for name in _VARIABLE.findall(text)}


def _is_odd(character: str) -> bool:
    """Control characters, halves of pairs, and digits of other scripts, which some parsers read as digits."""
    if character.isascii():
        return not (character.isprintable() or character in "\t\r\n")
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Nd")


def _is_unread(character: str) -> bool:
    """Signs that no parser here knows, and that one may pass over: `5` with a circled 1 behind it is not 5."""
    if character.isascii() or character in _READ_LATER:
        return False
    category, made_of = unicodedata.category(character), unicodedata.decomposition(character)
    return (category[0] in "NSM" and category != "Sc") or made_of.startswith(("<super>", "<sub>"))


def _spelt(text: str) -> str:
    """Signs of Unicode in LaTeX, and any space as a blank."""
    text = _VULGAR.sub(lambda m: r"\frac{{{}}}{{{}}}".format(*_plain(m[0]).split("\u2044")), text)
    text = _RAISED.sub(lambda m: f"^{{{_plain(m[0])}}}", text)
    text = _LOWERED.sub(lambda m: f"_{{{_plain(m[0])}}}", text)
    return re.sub(r"\s", " ", "".join(_SIGNS.get(character, character) for character in text))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _undelimited(text: str) -> str:
    """What stands between math delimiters if the rest is prose; "" if several expressions are delimited."""
    found = list(_MATH.finditer(text))
    if not found:
        return text.replace("$", "") if re.fullmatch(r"-?\$[^$]*", text) else text
    rest = text[: found[0].start()] + text[found[-1].end() :]
    if len(found) > 1 or re.search(r"[0-9\\$]", rest):
        return ""
    return next(group for group in found[0].groups() if group is not None)


def _fraction_of(repeating: re.Match[str]) -> str:
    """0.1\\overline{6} as \\frac{1}{6}."""
    whole, fixed, period = repeating.groups()
    value = Fraction(
        int(whole + fixed + period or "0") - int(whole + fixed or "0"), 10 ** len(fixed + period) - 10 ** len(fixed)
    )
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
