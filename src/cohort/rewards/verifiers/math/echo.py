"""Does an answer only say what the problem says? "Compute 6/4" answered with `\\frac{6}{4}` is no 3/2.

Two pieces of mathematics are the same here if they consist of the same symbols in any order, whatever their brackets,
spaces and spelling: `2+x` and `x + 2`, `6/4`, `6 ÷ 4`, `6 divided by 4` and `\\frac{6}{4}`.
"""

from __future__ import annotations

import re
from collections import Counter

__all__ = ["restates"]

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


def restates(answer: str, prompt: str, gold: str) -> bool:
    """Whether `answer`, more than one symbol, is a piece of `prompt` and is not `gold` itself as it is written."""
    symbols = _symbols(answer)
    if sum(count for symbol, count in symbols.items() if symbol not in "+-%°") < 2 or symbols == _symbols(gold):
        return False
    prompt = prompt[:_LONGEST_PROMPT]
    spoken = prompt
    for words, sign in _SPOKEN:
        spoken = re.sub(rf"(?i:\b{words}\b)", sign, spoken)
    pieces = (piece for text in {prompt, spoken} for piece in _BREAK.split(_WORD.sub(" = ", text)))
    return any(_symbols(piece) == symbols for piece in pieces)


def _symbols(text: str) -> Counter[str]:
    for spelling, symbol in _SPELLINGS:
        text = re.sub(spelling, symbol, text)
    return Counter(token.removeprefix("\\") for token in _TOKEN.findall(_DROPPED.sub(" ", text)))
