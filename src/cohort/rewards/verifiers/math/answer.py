"""Is the final answer mathematically the gold answer? Both are read as what they are, and compared at a bounded cost.

The answer is looked for as `verifiers.final_answer` says, and must be one answer. It is compared in a process that is
killed when it takes too long, so what a text costs it costs itself. Labels say what happened:

    right       wrong
    no_answer   the text marks no answer
    unparsed    what it marks is no expression, or several
    refused     it restates the problem, or leaves work undone that the gold answer does not
    timeout     memory     crash      comparing it took too much
"""

from __future__ import annotations

import math
import numbers
import re
from collections import Counter
from fractions import Fraction
from typing import Any

from cohort.rewards.guarded import Ended, guarded
from cohort.rewards.items import Scored
from cohort.rewards.marks import checked_by, stops_after
from cohort.rewards.verifiers.final_answer import final_answer, last_number_of
from cohort.rewards.verifiers.math.text import LONGEST_MATH, clean

__all__ = ["check_math", "math_answer"]

_MODULE = "cohort.rewards.verifiers.math.compare"
_GOLD_S = 10.0
_NUMERAL = re.compile(r"-?[0-9]{1,400}(?:\.[0-9]{1,400})?")

# For an answer that only says what the problem says: "Compute 6/4" answered with \frac{6}{4} is no 3/2.
_LONGEST_PROMPT = 20_000  # characters that are looked at
_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi"
_DROPPED = re.compile(
    r"\\(?:left|right|displaystyle|limits|quad|qquad|begin|end|big|Big|bigg|Bigg|mathrm|operatorname)(?![A-Za-z])"
    r"|\\[,;:! ]|[(){}\[\]]"
)
_SPELLINGS = (
    (r"\\[dtc]?frac", "/"),
    (r"\\div|[÷\u2044\u2215]", "/"),
    (r"\\cdot|\\times|\*\*?|[\u00d7·\u22c5\u2219]", ""),
    (r"\^\s*\{?\s*\\circ", "°"),
    (r"\u2212", "-"),
    (r"√", r"\\sqrt "),
    (r"π", r"\\pi "),
    (r"²", "^2"),
    (r"³", "^3"),
)
_SPOKEN = (
    (r"divided by", "/"),
    (r"(?:the )?cube root of", r"\\sqrt 3 "),
    (r"(?:the )?(?:square )?root of", r"\\sqrt "),
    (r"squared", "^2"),
    (r"cubed", "^3"),
    (r"(?:raised )?to the power(?: of)?", "^"),
    (r"(?:raised )?to the ([0-9]{1,9})(?:st|nd|rd|th) power", r"^\1"),
    (r"factorial", "!"),
)
_TOKEN = re.compile(rf"\\[A-Za-z]+|(?:{_FUNCTIONS})(?![A-Za-z])|[A-Za-z](?![A-Za-z])|[0-9]+(?:\.[0-9]+)?|[-+/^!_|%°√]")
_WORD = re.compile(rf"(?!(?:{_FUNCTIONS})(?![A-Za-z]))(?<![\\A-Za-z])[A-Za-z]{{2,}}|(?<=\s)[aAI](?=\s)")
_BREAK = re.compile(r"[=<>,;:?$]|[.](?![0-9])|\\(?:leq?|geq?|neq?|to|text|\(|\)|\[|\])(?![A-Za-z])|\n\s*\n")


def check_math(answer: Any) -> None:
    """Raise ValueError, with the reason, if `answer` is no gold answer that mathematics can be compared with."""
    gold = _gold(answer)
    if _NUMERAL.fullmatch(gold):
        return
    try:
        problem = guarded(f"{_MODULE}:problem_of", _GOLD_S, text=gold)
    except Ended as ended:
        raise ValueError(f"it takes too much to read it ({ended.how})") from None
    if problem is not None:
        raise ValueError(problem)


@stops_after("timeout_s")
@checked_by(check_math)
def math_answer(
    completion: str,
    answer: Any,
    prompt: str = "",
    last_number: bool = False,
    same_form: bool = False,
    units: bool = False,
    ordered: bool = True,
    timeout_s: float = 2.0,
) -> Scored:
    """1 if the final answer of `completion` is mathematically equal to the gold answer, else 0; the label says why.

    `last_number`: a text that marks no answer answers with its last number. `same_form`: the answer must also be built
    as the gold answer is (a sum, a product, a number ...), as in "expand" and "factor". `units`: the unit of
    the gold answer must be there too. `ordered`: (1, 2) is not (2, 1), nor {1, 2}. `timeout_s`: seconds of processor
    time for one completion. Raises ValueError for a gold answer that cannot be read.
    """
    gold = _gold(answer)
    found = final_answer(completion, LONGEST_MATH)
    if found is None and last_number:
        found = last_number_of(completion)
    if found is None:
        return Scored(0.0, "no_answer")
    text = clean(found)
    label = _by_text(text, gold, prompt)
    if label is None:
        options = {"same_form": same_form, "units": units, "ordered": ordered}
        try:
            label = guarded(f"{_MODULE}:compare", timeout_s, gold=gold, answer=text, **options)
        except Ended as ended:
            label = ended.how
    if label == "gold":
        raise ValueError(f"the gold answer {str(answer)[:80]!r} cannot be read as mathematics")
    return Scored(float(label == "right"), label)


def _by_text(answer: str, gold: str, prompt: str) -> str | None:
    """The label where comparing texts and plain numbers is enough, else None."""
    if not answer:
        return "unparsed"
    if _restates(answer, prompt, gold):
        return "refused"
    if _NUMERAL.fullmatch(answer) and _NUMERAL.fullmatch(gold):
        return "right" if Fraction(answer) == Fraction(gold) else "wrong"
    return None


def _gold(answer: Any) -> str:
    if isinstance(answer, str):
        found = final_answer(answer, LONGEST_MATH)
        text = clean(answer if found is None else found)
    elif isinstance(answer, numbers.Real) and not isinstance(answer, bool) and math.isfinite(answer):
        text = clean(str(answer))  # a float as it is written: 0.1 is 1/10
    else:
        text = ""
    if not text:
        raise ValueError(f"the gold answer {str(answer)[:80]!r} is not one mathematical expression")
    return text


def _restates(answer: str, prompt: str, gold: str) -> bool:
    """Whether `answer`, more than one symbol, is a piece of `prompt` and is not `gold` itself as it is written.

    Two pieces of mathematics are the same here if they consist of the same symbols in any order, whatever their
    brackets, spaces and spelling: `2+x` and `x + 2`, `6/4`, `6 ÷ 4`, `6 divided by 4` and `\\frac{6}{4}`.
    """
    symbols = _symbols(answer)
    if sum(count for symbol, count in symbols.items() if symbol not in "+-%°") < 2 or symbols == _symbols(gold):
        return False
    prompt = prompt[:_LONGEST_PROMPT]
    if "|" in answer and _squeezed(answer) in _squeezed(prompt):  # |x| < 3, which is solved
        return True
    spoken = prompt
    for words, sign in _SPOKEN:
        spoken = re.sub(rf"(?i:\b{words}\b)", sign, spoken)
    pieces = (piece for text in {prompt, spoken} for piece in _BREAK.split(_WORD.sub(" = ", text)))
    return any(_symbols(piece) == symbols for piece in pieces)


def _squeezed(text: str) -> str:
    """An inequality without blanks and bars."""
    text = re.sub(r"\s|[$|]|\\(?:left|right|[lr]?vert)(?![A-Za-z])", "", text)
    return re.sub(r"\\(?:leq?|leqslant)(?![A-Za-z])|≤", "<=", re.sub(r"\\(?:geq?|geqslant)(?![A-Za-z])|≥", ">=", text))


def _symbols(text: str) -> Counter[str]:
    for spelling, symbol in _SPELLINGS:
        text = re.sub(spelling, symbol, text)
    return Counter(token.removeprefix("\\") for token in _TOKEN.findall(_DROPPED.sub(" ", text)))
