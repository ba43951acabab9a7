"""What the reader of mathematics knows by name: commands, functions, relations, constants; and answers in words."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from cohort.rewards.verifiers.math.node import INFINITY, Node, negative
from cohort.rewards.verifiers.words import NUMBERS, in_alphabetical_order, names

FUNCTIONS = {name: name for name in names(
    "sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arccot arcsec arccsc arcsinh arcosh artanh log ln"
    " lg exp sqrt"
)}  # fmt: skip
FUNCTIONS |= {"tg": "tan", "ctg": "cot", "cotg": "cot", "arctg": "arctan", "sh": "sinh", "ch": "cosh", "th": "tanh"}
FUNCTIONS |= {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "cosec": "csc"}
# Work that is left to do; True for those that take what stands in the bracket behind them.
OPERATORS = dict.fromkeys(names("int iint iiint oint sum prod coprod lim limsup liminf"), False)
OPERATORS |= dict.fromkeys(
    names("max min sup inf gcd lcm det tr rank dim deg arg Re Im bmod pmod mod Pr floor ceil ker sgn argmax"), True
)
_RELATIONS = names(  # how it is written and what it is; the longer of two that begin alike comes first
    r"\leqslant <= \geqslant >= \leq <= \geq >= \neq != \not= != \notin notin \le <= \ge >= \ne != \lt < \gt > <= <="
    r" >= >= =< <= != != == = := = = = < < > > \in in \approx ≈ \equiv equiv \simeq ~- \sim ~ \cong ~= \propto prop"
    r" \to to \rightarrow to \longrightarrow to \mapsto to"
    r" \Rightarrow implies \implies implies \iff iff \Leftrightarrow iff"
    r" \leftrightarrow iff \subseteq subset= \subset subset \supseteq supset= \supset supset \perp perp"
    r" \parallel parallel \mid divides"
)
RELATIONS = tuple(zip(_RELATIONS[::2], _RELATIONS[1::2]))
CONSTANTS = {name: Node("const", (value,)) for name, value in zip(names("pi infty e i imath"), names("pi inf e i i"))}
SET_NAMES = {name: Node("numset", (name[0],)) for name in names("R Reals N Z Q")}
SET_NAMES |= dict.fromkeys(("emptyset", "varnothing"), Node("empty", ()))
TEXTUAL = frozenset(names(
    "text textbf textit textrm textnormal textsf texttt textsc textup mbox hbox mathrm operatorname emph"
))  # fmt: skip
# True for those that make another name of a letter, as an arrow does.
WRAPPERS = dict.fromkeys(
    names("mathbf boldsymbol bm mathit mathsf mathtt pmb mathcal mathnormal underline boxed fbox ensuremath"), False
)
WRAPPERS |= dict.fromkeys(
    names("overline widehat vec hat bar tilde dot ddot overrightarrow overleftrightarrow arc widetilde"), True
)
NO_FACTORS = frozenset(names(
    r"pm mp cdot times div ast bullet cup cap setminus backslash bigcup land lor wedge vee mid } ] ) right rvert rVert"
    r" rfloor rceil end \ % degree circ , ; : !"
))  # fmt: skip
BASE_NAMES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
BASE_NAMES |= {"twelve": 12, "sixteen": 16}

_MARKED = re.compile(r"\\(?:text[a-z]{0,6}|mathrm|mathbf|mathit|mbox|operatorname|emph|rm)\s*\{([^{}]*)\}")
_WORDS = re.compile(r"[^\W\d_]+(?:(?:[,.] ?|[-' ])[^\W\d_]+|[,.]? [0-9]{1,4}(?:st|nd|rd|th)?\b)*[.!]?")
_MONTHS = names("jan(?:uary)? feb(?:ruary)? mar(?:ch)? apr(?:il)? may june? july? aug(?:ust)? sept?(?:ember)?")
_MONTHS += names("oct(?:ober)? nov(?:ember)? dec(?:ember)?")
_MONTH = re.compile(rf"\b({'|'.join(_MONTHS)})\b\.?", re.IGNORECASE)
_ALIASES = {
    "infinity": INFINITY, "positive infinity": INFINITY, "negative infinity": negative(INFINITY),
    "minus infinity": negative(INFINITY),
    **dict.fromkeys(("real number", "all real", "all real number", "real", "set of real number", "all real value",
                     "set of all real number", "any real number"), Node("numset", ("R",))),
    **dict.fromkeys(("no solution", "empty set"), Node("empty", ())),
    **dict.fromkeys(("integer", "all integer"), Node("numset", ("Z",))),
    **{word: Node("num", (Fraction(number), str(number))) for word, number in NUMBERS.items()},
    **{word: Node("num", (Fraction(number), "")) for word, number in {
        "half": "1/2", "one half": "1/2", "one third": "1/3", "two third": "2/3", "one quarter": "1/4",
        "three quarter": "3/4", "one fourth": "1/4", "three fourth": "3/4",
    }.items()},
}  # fmt: skip
_MEANS = {"dne": "not exist", "doesn't exist": "not exist", "doe not exist": "not exist"}


def read_text(text: str) -> Node | None:
    """A text of words alone as what it names (infinity, all real numbers, five, a date) or as its words, else None.

    Words are letters in \\text{}, or three and more of them that are no product.
    """
    plain, marked = _MARKED.subn(r" \1 ", text)
    plain = " ".join(plain.replace("\\ ", " ").replace("~", " ").split()).strip(" .")
    if (date := _date(plain)) is not None:
        return date
    bare = plain[1:-1] if re.fullmatch(r"\([^()]*\)", plain) else plain
    if not _WORDS.fullmatch(bare):
        return None
    runs = re.findall(r"[^\W\d_]+", bare)
    longest = max(0 if run in ("and", "or") else len(run) for run in runs)
    has_digits = re.search(r"[0-9]", bare) is not None
    if marked:
        if longest < 2 or re.match(r"[^\\]*[0-9]", text):
            return None
    elif bare.casefold() == "no":
        return Node("text", ("no",))
    elif longest < 3 or (has_digits and not _MONTH.search(bare)) or (len(runs) == 1 and _is_product(runs[0])):
        return None
    if any(run == "pi" or run in FUNCTIONS for run in runs):
        return None
    words = " ".join(map(_singular, re.findall(r"[^\W_]+(?:'[^\W\d_]+)?", bare)))
    words = re.sub(r"^the ", "", _MEANS.get(words.casefold(), words), flags=re.IGNORECASE)
    # NaCl and ABC are names, in which case counts
    name = len(runs) == 1 and len(words) < 5 and not (bare.islower() or bare.istitle() or bare in ("NO", "YES", "TRUE"))
    return _ALIASES.get(words.casefold()) or Node("text", (words if name else words.casefold(),))


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def _is_product(run: str) -> bool:
    """Whether letters are factors: abc and xyz are."""
    return run.islower() and in_alphabetical_order(run)


def _date(text: str) -> Node | None:
    """`2024-05-01`, `May 1, 2024`, `1 May`, `July 4th`: the year (or None), the month and the day (or None)."""
    if match := re.fullmatch(r"([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])", text):
        return Node("date", tuple(map(int, match.groups())))
    if match := re.fullmatch(r"([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})", text):
        return Node("date", (*map(int, match.groups()), "which is the month is not said"))
    months = _MONTH.findall(text)
    rest = re.sub(r"([0-9])(?:st|nd|rd|th)\b|\bof\b|\bthe\b", r"\1", _MONTH.sub(" ", text))
    found = re.findall(r"[0-9]+", rest)
    years, days = [n for n in found if len(n) == 4], [n for n in found if len(n) < 3]
    if len(months) != 1 or re.search(r"[^\W\d_]", rest) or not found or len(years) > 1 or len(days) > 1:
        return None
    month = next(index for index, name in enumerate(_MONTHS, 1) if months[0].lower().startswith(name[:3]))
    return Node("date", (_whole(years), month, _whole(days)))


def _whole(found: list[str]) -> Any:
    return int(found[0]) if found else None
