"""Comparing two mathematical expressions with math-verify. This runs in a guarded child: see `cohort.rewards.guarded`.

math-verify's own time limits use SIGALRM and work in a main thread only, so they are off; the child is killed instead.
"""

from __future__ import annotations

import logging
import math
import re
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy.parsing import sympy_parser

from cohort.rewards.verifiers.math.text import without_unit

# Units are taken off here: for the library the `ab` of `2ab` is one, as is the `t` of `3t`.
_NORMAL = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
_LATEX = (LatexExtractionConfig(boxed_match_priority=-1, normalization_config=_NORMAL),)
_DIGITS = 6  # significant ones that a decimal must share with the gold answer
_HARMLESS = re.compile(r"(?:(?:Integer|Float|Symbol) ?\('?[\w.]+'? ?\)|[-+*/() ])+")
_eval_expr = sympy_parser.eval_expr
_COMMON = (
    r"x^2+2x+1", r"\frac{-1+\sqrt{5}}{2}", r"2\pi", r"(1,2)", r"\{1,2\}", r"3x+2y=7", r"1<x\le 2", r"50\%", r"90^\circ",
    r"(-\infty,1)\cup(2,\infty)", r"\begin{pmatrix}1\\2\end{pmatrix}", r"\log_2 8", r"\sin x", r"e^{2}", r"0.5",
    r"3+4i", r"10^{5}",
)  # fmt: skip


def warm_up() -> None:
    """Called once before children are forked: the parser learns its grammar from what it reads."""
    logging.disable(logging.CRITICAL)
    for text in _COMMON:
        _read(text)
    compare("x^2+2x+1", "(x+1)^2", False)
    sympy_parser.eval_expr = _harmless  # nothing that a model has written is ever run as Python


def compare(gold: str, answer: str, same_form: bool) -> str:
    """ "right" or "wrong"; "unparsed" if `answer`, "gold" if `gold` cannot be read; "refused" if the answer is to have
    the `same_form` and is built in another way than the gold answer (a sum, a product, a number, a set ...).
    """
    expected = _read(gold)
    if expected is None:
        return "gold"
    found = _read(answer)
    if found is None:
        return "unparsed"
    if same_form and _form(found) != _form(expected):
        return "refused"
    places = _DIGITS + _zeros(expected)
    precision = {"float_rounding": places, "numeric_precision": max(15, places)}
    same = verify(expected, found, **precision, allow_set_relation_comp=True, timeout_seconds=None)
    return "right" if same else "wrong"


def is_readable(text: str) -> bool:
    """Whether `text` is an expression that can be compared."""
    return _read(text) is not None


def _read(text: str) -> Any:
    """The expression, None if it cannot be read. The plain text that math-verify offers besides is not one."""
    found = parse(f"${without_unit(text)}$", _LATEX, parsing_timeout=None)
    return next((expression for expression in found if not isinstance(expression, str)), None)


def _form(expression: Any) -> str:
    if isinstance(expression, sympy.Number):
        return "number"
    if isinstance(expression, (sympy.Mul, sympy.Pow)):
        return "product"
    return "sum" if isinstance(expression, sympy.Add) else type(expression).__name__


def _zeros(expression: Any) -> int:
    """How many zeros follow the point of a decimal before its first other digit: a tolerance has to shrink with it."""
    if not isinstance(expression, sympy.Number) or not 0 < abs(expression) < 1:
        return 0
    return max(0, math.ceil(-math.log10(float(abs(expression)) or 1e-300)) - 1)


def _harmless(code: str, *names: Any) -> Any:
    """sympy's `eval` of what it makes of a text, for numerals and names alone: no other call, and no attribute."""
    if not _HARMLESS.fullmatch(code):
        raise ValueError("only numerals and names are evaluated")
    return _eval_expr(code, *names)
