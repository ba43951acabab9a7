"""From an answer as it is written to the LaTeX of one expression: delimiters, signs of Unicode, how it is typeset.

Nothing here decides what a text means; `reader` does. Every pattern is linear, and texts are as short as answers are.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from itertools import pairwise

from cohort.rewards.verifiers.characters import plain
from cohort.rewards.verifiers.words import names

LONGEST_MATH = 1000  # characters of an answer

_MATH = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$(.+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_JOINS = re.compile(r"\s*(?:[,;]|,?\s*and)\s*")
_SIGNS = {
    "\u00d7": r"\times ", "·": r"\cdot ", "÷": r"\div ", "π": r"\pi ", "∞": r"\infty ", "°": r"^\circ ",
    "º": r"^\circ ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∓": r"\mp ",
    "∩": r"\cap ", "\u222a": r"\cup ", "∅": r"\emptyset ", "Ø": r"\emptyset ", "\u211d": r"\mathbb{R}",
    "\u2124": r"\mathbb{Z}", "\u2115": r"\mathbb{N}", "\u211a": r"\mathbb{Q}", "∈": r"\in ", "∉": r"\notin ",
    "∠": r"\angle ", "△": r"\triangle ", "\u22c5": r"\cdot ", "\u2219": r"\cdot ", "\u2044": "/", "\u2215": "/",
    "→": r"\to ", "≈": r"\approx ", "\u2216": r"\setminus ", "∧": r"\land ", "\u2228": r"\lor ", "¬": r"\neg ",
    "\u2032": "'", "″": "''", "…": r"\ldots ", "⟨": "(", "⟩": ")", "\u2223": "|", "\u2016": r"\|", "⇒": r"\Rightarrow ",
    "⇔": r"\iff ", "≡": r"\equiv ", "∫": r"\int ", "∬": r"\iint ", "∮": r"\oint ", "∑": r"\sum ", "∏": r"\prod ",
    "∂": r"\partial ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "√": r"\sqrt ",
    "”": '"', "“": '"',
    **{letter: rf"\{name} " for letter, name in zip("αβγδεζηθικλμνξρστυφχψωΓΔΘΛΞΠΣΦΨΩ", names(
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi"
        " omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"
    ))},
}  # fmt: skip
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u207b\u207f]+")
_LOWERED = re.compile("[\u2080-\u2089]+")
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e\u2189]")  # one half, two thirds ...
_REPEATING = re.compile(r"(?<![0-9.])([0-9]{0,12})\.([0-9]{0,12})\\(?:overline|bar|dot)\s*\{([0-9]{1,12})\}")
_LAYOUT = re.compile(
    r"\\(?:left|right|middle|displaystyle|textstyle|scriptstyle|limits|nolimits|[bB]igg?[lr]?|mathop|large|Large|small|boldmath|bf|it"
    r"|mathstrut|rm)(?![A-Za-z])\s*(?:\.(?=\s|$|\\|\w))?"
)
_COLOUR = re.compile(
    r"\\(?:textcolor|colorbox|color)\s*(?:\[[^\]]*\])?\s*\{[^{}]*\}|\\(?:h|v)(?:space|phantom)\*?\s*\{[^{}]*\}|\\label\s*\{[^{}]*\}"
)
_BLANK = re.compile(
    r"(?<!\\)\\(?:[,;:> ]|(?:thinspace|enspace|enskip|quad|qquad|medspace|thickspace|nobreakspace)(?![A-Za-z]))|~"
)
_CURRENCY = re.compile(
    r"\\\$|\\(?:euro|pounds|yen|textdollar)(?![A-Za-z])|[€£¥₹₩₽₱₫₪฿¢]|^\s*(?:USD|EUR|GBP|INR|CNY|JPY|Rs\.?|US)\s?(?=[\d$\\-])|US(?=\s?\\?\$)"
)
# `The answer is 72`, `Total: 5`, `\\text{Answer: }5`
_PREFIX = re.compile(r"(?:\\text\s*\{)?\s*[A-Za-z][A-Za-z ]{1,60}(?:\s*:|(?<= )is)\s*\}?\s*(?=[-+\\$0-9(])")
_MINUS = re.compile(r"\A(?:\\text\s*\{\s*)?(?:minus|negative)(?:\s*\}\s*|\s+)(?=[0-9.\\$])", re.IGNORECASE)
_SPELLINGS = (
    (r",\\!\s*|\{,\}", ","),
    (r"\\!", ""),
    (r"\{([:;])\}", r"\1"),
    (r"\*\*", "^"),
    (r"\\(?:langle|lparen)(?![A-Za-z])", "("),
    (r"\\(?:rangle|rparen)(?![A-Za-z])", ")"),
    (r"\\(?:lbrace)(?![A-Za-z])", r"\\{"),
    (r"\\(?:rbrace)(?![A-Za-z])", r"\\}"),
    (r"\\(?:lbrack)(?![A-Za-z])", "["),
    (r"\\(?:rbrack)(?![A-Za-z])", "]"),
    (r"\\(?:[dtcs]|nice)frac(?![A-Za-z])", r"\\frac"),
    (r"(?<!\\)%", r"\\%"),
    (r"(?<=[0-9])\s*(?:\\(?:text|mathrm)\s*\{\s*(?:percent|per cent)\s*\}|per\s?cents?\b)", r"\\%"),
    (r"\\mathrm\s*\{\s*~", r"\\mathrm{ "),
    (r"(?<=[0-9])\s*(?:\\(?:text|mathrm)\s*\{\s*degrees?\s*\}|degrees?\b|deg\b)", r"^\\circ "),
    (r"\{([^{}]*?)\\choose(?![A-Za-z])([^{}]*)\}", r"\\binom{\1}{\2}"),
    (r"(?:\{|\A)([^{}]*?)\\over(?![A-Za-z])([^{}]*)(?:\}|\Z)", r"\\frac{\1}{\2}"),
)  # fmt: skip


def clean(text: str) -> str:
    """The expression that `text` states, as LaTeX without delimiters; "" if it states none, or several."""
    text = plain(text).strip()
    if not text or len(text) > LONGEST_MATH or any(map(_is_odd, text)):
        return ""
    text = re.sub(r"√\s*(?:\(([^()]*)\)|([0-9]+))", lambda m: rf"\sqrt{{{m[1] or m[2]}}}", text)
    text = _undelimited(_spelt(text).strip("*_`#? \t\r\n"))
    text = _COLOUR.sub("", _LAYOUT.sub("", text))
    for pattern, spelling in _SPELLINGS:
        text = re.sub(pattern, spelling, text)
    text = _BLANK.sub(" ", _CURRENCY.sub("", text))
    text = _MINUS.sub("-", _PREFIX.sub("", text, count=1) if _PREFIX.match(text) else text)
    text = _REPEATING.sub(_fraction_of, text).strip().rstrip(".,;:? ").strip()
    text = re.sub(r"(?<=[0-9])\.(?=\})", "", text)
    return "" if "$" in text or any(map(_is_unread, text)) else text


def _is_odd(character: str) -> bool:
    """Control characters, halves of pairs, and digits of other scripts, which some parsers read as digits."""
    if character.isascii():
        return not (character.isprintable() or character in "\t\r\n")
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Nd")


def _is_unread(character: str) -> bool:
    """Signs that are not read, so that nobody passes over them: `5` with a circled 1 behind it is not 5."""
    if character.isascii():
        return False
    category, made_of = unicodedata.category(character), unicodedata.decomposition(character)
    return category[0] in "NSM" or made_of.startswith(("<super>", "<sub>"))


def _spelt(text: str) -> str:
    """Signs of Unicode in LaTeX, and any space as a blank."""
    text = _VULGAR.sub(lambda m: r"\frac{{{}}}{{{}}}".format(*_nfkc(m[0]).split("\u2044")), text)
    text = _RAISED.sub(lambda m: f"^{{{_nfkc(m[0])}}}".replace("\u2212", "-"), text)
    text = _LOWERED.sub(lambda m: f"_{{{_nfkc(m[0])}}}", text)
    return re.sub(r"\s", " ", "".join(_SIGNS.get(character, character) for character in text))


def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _undelimited(text: str) -> str:
    """What stands between math delimiters if the rest is prose; several only if nothing but commas parts them."""
    found = list(_MATH.finditer(text))
    if not found:
        return text.replace("$", "") if re.fullmatch(r"-?\$[^$]*", text) else text
    inside = [next(group for group in match.groups() if group is not None) for match in found]
    rest = text[: found[0].start()] + text[found[-1].end() :]
    between = [text[a.end() : b.start()] for a, b in pairwise(found)]
    if re.search(r"[0-9\\$]", rest) or not all(map(_JOINS.fullmatch, between)):
        return ""
    return ", ".join(inside)


def _fraction_of(repeating: re.Match[str]) -> str:
    """0.1\\overline{6} as \\frac{1}{6}."""
    whole, fixed, period = repeating.groups()
    value = Fraction(
        int(whole + fixed + period or "0") - int(whole + fixed or "0"), 10 ** len(fixed + period) - 10 ** len(fixed)
    )
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
