"""The calculator: right, and cheap whatever it is given."""

from __future__ import annotations

import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.environments import ToolError
from cohort.environments.calculator import calculate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("348 * 27", "9396"),
        ("1,204 / 8", "150.5"),
        ("2 + 3 * 4 - 5", "9"),
        ("(2 + 3) * (4 - 5)", "-5"),
        ("10 - 4 - 3", "3"),
        ("2 ^ 3 ** 2", "512"),
        ("-2 ^ 2", "-4"),
        ("2 ^ -2", "0.25"),
        ("7 // 2 + 7 % 3", "4"),
        ("--3", "3"),
        ("0.1 + 0.2", "0.3"),
        ("1 / 3", "0.333333333333"),
        ("2 / 3 * 3", "2"),
        ("sqrt(144) + abs(-3) + round(2.6)", "18"),
        ("SQRT(2)", "1.41421356237"),
        ("12 \u00d7 12 \u00f7 6 \u2212 4 =", "20"),
        ("1 / 7 * 10 ^ 20", "1.42857142857E+19"),
        (".5 * 4", "2"),
    ],
)
def test_values(expression, value):
    assert calculate(expression) == value


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("", "not complete"),
        ("2 +", "not complete"),
        ("(1 + 2", "not closed"),
        ("1 + 2)", r"did not expect '\)'"),
        ("2 3", "did not expect '3'"),
        ("1 / 0", "division by zero"),
        ("1 % (3 - 3)", "division by zero"),
        ("0 ^ -1", "division by zero"),
        ("2 ^ 0.5", "whole number"),
        ("sqrt(-1)", "negative"),
        ("1,23 + 4", "cannot read ',23"),
        ("max(1)", "no function 'max', only sqrt, abs, round"),
        ("sqrt 4", "did not expect 'sqrt'"),
        ("__import__('os').system('id')", "cannot read"),
        ("os", "no function 'os'"),
        ("1 if 1 else 2", "did not expect 'if'"),
    ],
)
def test_what_it_cannot_do_is_said(expression, says):
    with pytest.raises(ToolError, match=says):
        calculate(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "9^9^9^9",
        "(" * 200 + "1" + ")" * 200,
        "-" * 499 + "1",
        "1" * 501,
        "10^4000",
        "*".join(["9" * 60] * 8) + "^9" * 5,
    ],
)
def test_no_text_costs_much(expression):
    with pytest.raises(ToolError):
        calculate(expression)


@given(st.text(alphabet="0123456789+-*/%^(). ,sqrtabound=\u00d7x", max_size=60) | st.text(max_size=40))
def test_any_text_gives_a_result_or_a_tool_error(text):
    with contextlib.suppress(ToolError):
        assert calculate(text)


@st.composite
def expressions(draw, depth=3):
    """(text, value) with every operation, fully parenthesised."""
    if depth == 0 or draw(st.booleans()):
        number = draw(st.integers(0, 999))
        return str(number), Fraction(number)
    (left, a), (right, b) = draw(expressions(depth - 1)), draw(expressions(depth - 1))
    signs = "+-*" if b == 0 else "+-*/"
    sign = draw(st.sampled_from(signs))
    value = {"+": a + b, "-": a - b, "*": a * b}.get(sign)
    return f"({left} {sign} {right})", a / b if value is None else value


@given(expressions())
def test_it_agrees_with_exact_fractions(made):
    text, value = made
    if value.denominator == 1:
        assert calculate(text) == str(value.numerator)
    else:
        assert Fraction(calculate(text)) == pytest.approx(value, rel=1e-11)
