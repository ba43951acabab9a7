"""The calculator: arithmetic read by a parser of its own, exact for fractions, at a cost that no text can drive up.

    calculate("(348 * 27 + 1,204) / 8")     # "1325"

`+ - * / // % ^ **`, parentheses, `sqrt`, `abs` and `round` of one number. Nothing is ever evaluated as Python.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction

from cohort.environments.tools import Tool, ToolError, tool_of

_LONGEST = 500  # characters
_DEEPEST = 50  # parentheses and signs inside each other
_MOST_BITS = 4096  # of a numerator or denominator: more than any answer has
_DIGITS = 12  # significant digits of what is no whole number

_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_TOKEN = re.compile(rf"\s*(?:(?P<number>{_NUMBER})|(?P<sign>\*\*|//|[-+*/%^()])|(?P<name>[a-z]+))")
_LEVELS = (("+", "-"), ("*", "/", "//", "%"))  # of binary operations, from the loosest
_WRITTEN_OTHERWISE = str.maketrans({"\u00d7": "*", "\u00b7": "*", "\u00f7": "/", "\u2212": "-"})


def calculate(expression: str) -> str:
    """Compute an arithmetic expression such as 12 * (7 + 5) / 3. It may have + - * / // % ^ ( ) sqrt abs round.

    Args:
        expression: The expression.
    """
    if len(expression) > _LONGEST:
        raise ToolError(f"an expression has at most {_LONGEST} characters")
    text = expression.translate(_WRITTEN_OTHERWISE).lower().strip().removesuffix("=").rstrip()
    return _shown(_Parser(_tokens(text)).whole())


def calculator_tool() -> Tool:
    """The tool `calculator(expression)`."""
    return tool_of(calculate, "calculator")


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ToolError(f"cannot read {text[at:].strip()[:20]!r}")
        found.append(match["number"].replace(",", "") if match["number"] else match[0].strip())
        at = match.end()
    return found


class _Parser:
    """Recursive descent; every method takes the tokens of what it reads and gives its value."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = self._depth = 0

    def whole(self) -> Fraction:
        value = self._chain()
        if self._at < len(self._tokens):
            raise ToolError(f"did not expect {self._tokens[self._at]!r}")
        return value

    def _next(self, *wanted: str) -> str | None:
        """The next token if it is one of these; it is then taken."""
        if self._at < len(self._tokens) and self._tokens[self._at] in wanted:
            self._at += 1
            return self._tokens[self._at - 1]
        return None

    def _chain(self, level: int = 0) -> Fraction:
        """A sum, or at level 1 a product: operations that bind alike, from left to right."""
        if level == len(_LEVELS):
            return self._signed()
        value = self._chain(level + 1)
        while (sign := self._next(*_LEVELS[level])) is not None:
            value = _apply(sign, value, self._chain(level + 1))
        return value

    def _signed(self) -> Fraction:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ToolError("too many parentheses or signs inside each other")
        sign = self._next("+", "-")
        value = self._atom() if sign is None else self._signed()
        if sign is None and self._next("^", "**") is not None:
            value = _raised(value, self._signed())
        self._depth -= 1
        return -value if sign == "-" else value

    def _atom(self) -> Fraction:
        if self._at == len(self._tokens):
            raise ToolError("the expression is not complete")
        token = self._tokens[self._at]
        self._at += 1
        if token[0].isdigit() or token[0] == ".":
            return _bounded(Fraction(token))
        function = _FUNCTIONS.get(token)
        if function is None and token.isalpha():
            raise ToolError(f"there is no function {token!r}, only {', '.join(_FUNCTIONS)}")
        if token != "(" and (function is None or self._next("(") is None):
            raise ToolError(f"did not expect {token!r}")
        value = self._chain()
        if self._next(")") is None:
            raise ToolError("a parenthesis is not closed")
        return value if function is None else function(value)


def _apply(sign: str, left: Fraction, right: Fraction) -> Fraction:
    if sign in ("/", "//", "%") and not right:
        raise ToolError("division by zero")
    return _bounded(Fraction(_OPERATIONS[sign](left, right)))


def _raised(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise ToolError("an exponent is a whole number; use sqrt for square roots")
    if not base and exponent < 0:
        raise ToolError("division by zero")
    bits = max(base.numerator.bit_length(), base.denominator.bit_length()) if abs(base) != 1 else 0
    if bits * abs(exponent.numerator) > _MOST_BITS:
        raise ToolError("the result is too large")
    return Fraction(base**exponent.numerator)


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MOST_BITS:
        raise ToolError("the result is too large")
    return value


def _square_root(value: Fraction) -> Fraction:
    """Exact where it can be, otherwise to 50 digits."""
    if value < 0:
        raise ToolError("the square root of a negative number")
    top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
    if Fraction(top * top, bottom * bottom) == value:
        return Fraction(top, bottom)
    return Fraction(Context(prec=50).sqrt(_decimal(value, 50)))


def _decimal(value: Fraction, digits: int) -> Decimal:
    context = Context(prec=digits, rounding=ROUND_HALF_EVEN)
    return context.divide(Decimal(value.numerator), Decimal(value.denominator))


def _shown(value: Fraction) -> str:
    """Whole numbers in full, others to 12 significant digits."""
    if value.denominator == 1:
        return str(value.numerator)
    decimal = _decimal(value, _DIGITS)
    return f"{decimal:f}" if -7 < decimal.adjusted() < _DIGITS else f"{decimal:E}"


_OPERATIONS: Mapping[str, Callable[[Fraction, Fraction], Fraction | int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
_FUNCTIONS: Mapping[str, Callable[[Fraction], Fraction]] = {
    "sqrt": _square_root,
    "abs": abs,
    "round": lambda value: Fraction(round(value)),
}
