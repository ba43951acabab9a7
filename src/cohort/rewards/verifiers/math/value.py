"""What an expression is worth: exactly where it is a rational number, else to as many digits as telling apart takes.

Nothing here is simplified, and everything is bounded: the bits of exact numbers, the digits of others. Two expressions
with variables are compared at fixed points that nobody guesses, two numbers in digits enough for the smallest of their
parts, so that 1 - 2^{-100} is not 1.
"""

from __future__ import annotations

import math
import random
from fractions import Fraction
from typing import Any

from mpmath import mp

from cohort.rewards.verifiers.math.digits import NoValue, Value
from cohort.rewards.verifiers.math.node import IMAGINARY, Node, symbols, walk

_LONGEST = 60_000  # bits of an exact number
_MOST_DIGITS = 6_000
_ROUNDED = 6  # significant digits that a decimal must have to stand for a number that is none
_POINTS = ((1, 1), (-1, 1), (0, 10), (1, 10), (1, 3), (0, 1), (-1, 10), (1, 100), (0, 100))  # (sign or any, scale)


def exact(node: Any, percent: int = 100) -> Fraction | None:
    """The rational number that `node` is by arithmetic alone, else None. Raises NoValue for a division by zero."""
    op, args = node
    if op == "num":
        return Fraction(args[0])
    if op in ("degree", "neg", "percent", "add", "mul", "div"):
        parts = [exact(arg, percent) for arg in args]
        if any(part is None for part in parts):
            return None
        if op == "div" and parts[1] == 0:
            raise NoValue("it divides by zero")
        return _bounded(_ARITHMETIC[op](parts, percent))
    if op == "pow":
        base, power = exact(args[0], percent), exact(args[1], percent)
        if base is None or power is None or power.denominator != 1:
            return None
        if base == 0 and power < 0:
            raise NoValue("it divides by zero")
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        return base**power.numerator if abs(power) * size < _LONGEST else None
    if op == "call" and args[0] in ("fact", "binom", "abs"):
        numbers = [exact(arg, percent) for arg in args[1:]]
        if any(number is None for number in numbers):
            return None
        if args[0] == "abs":
            return abs(numbers[0])  # type: ignore[arg-type]
        whole = [int(number) for number in numbers if number is not None and number.denominator == 1]
        if len(whole) == len(numbers) and all(0 <= number <= 4000 for number in whole):
            return Fraction(math.factorial(whole[0]) if args[0] == "fact" else math.comb(*whole))
    return None


def _bounded(value: Fraction) -> Fraction | None:
    return value if max(value.numerator.bit_length(), value.denominator.bit_length()) < 4 * _LONGEST else None


def _times(parts: Any) -> Fraction:
    value = Fraction(1)
    for part in parts:
        value *= part
        if value.numerator.bit_length() > 8 * _LONGEST:
            raise NoValue("it is too large")
    return value


_ARITHMETIC: dict[str, Any] = {
    "degree": lambda p, _: p[0], "neg": lambda p, _: -p[0], "percent": lambda p, percent: p[0] / percent,
    "add": lambda p, _: sum(p), "mul": lambda p, _: _times(p), "div": lambda p, _: p[0] / p[1],
}  # fmt: skip


def same_value(left: Node, right: Node) -> bool:
    """Whether two expressions are equal, wherever both have a value."""
    percents = [any(part.op == "percent" for part in walk(node)) for node in (left, right)]
    for percent in (100,) if percents[0] == percents[1] else (1, 100):
        try:
            if _same(left, right, percent):
                return True
        except NoValue:
            continue
    return False


def has_value(node: Node) -> bool:
    """Whether an expression without variables has a value; one with variables is taken to have some."""
    try:
        if exact(node) is None and not symbols(node):
            with mp.workdps(30):
                Value({}, 100).of(node)
    except NoValue as why:
        return "divide" not in str(why) and "no value" not in str(why)
    return True


def _same(left: Node, right: Node, percent: int) -> bool:
    one, other = exact(left, percent), exact(right, percent)
    if one is not None and other is not None:
        return one == other or _rounded(left, right, one, other)
    names = sorted(symbols(left) | symbols(right))
    if not names:
        return _rounded(left, right, one, other) or _agree(left, right, {}, percent)[0]
    imaginary = any(part == IMAGINARY for part in (*walk(left), *walk(right)))
    reals: list[bool] = []
    others: list[bool] = []
    for sign, scale in _POINTS:
        point = {name: _point(name, sign, scale) for name in names}
        try:
            same, real = _agree(left, right, point, percent)
        except NoValue:
            continue
        (reals if real or imaginary else others).append(same)
        if (real or imaginary) and not same:
            return False
        if len(reals) > 3:
            break
    return len(reals) > 1 or (not reals and len(others) > 2 and all(others))


def _point(name: str, sign: int, scale: int) -> Fraction:
    chance = random.Random(f"{name}/{sign}/{scale}")
    value = scale * Fraction(chance.randrange(3 * 10**29, 13 * 10**29), 10**30)
    return value * (sign or chance.choice((1, -1)))


def _agree(left: Node, right: Node, point: dict[str, Fraction], percent: int) -> tuple[bool, bool]:
    """Whether both have one value at a point, and whether all of their parts are real there."""
    with mp.workdps(30):
        rough = Value(point, percent)
        first, second = rough.of(left), rough.of(right)
        if mp.isinf(first) or mp.isinf(second):
            return first == second, True
        if abs(first - second) > abs(first + second) * mp.mpf(10) ** -8 + mp.mpf(10) ** (rough.highest - 15):
            return False, rough.real
    digits = 50 + rough.highest - rough.lowest
    if digits > _MOST_DIGITS:
        raise NoValue("its parts differ too much in size")
    with mp.workdps(digits):
        fine = Value(point, percent)
        difference = abs(fine.of(left) - fine.of(right))
        return bool(difference < mp.mpf(10) ** (rough.lowest - 25)), fine.real


def _rounded(left: Node, right: Node, one: Fraction | None, other: Fraction | None) -> bool:
    """Whether one is a decimal of six and more digits, and the other, which is none, rounded to as many."""
    for decimal, value, node in ((left, other, right), (right, one, left)):
        sign, number = (-1, decimal.args[0]) if decimal.op == "neg" else (1, decimal)
        written = str(number.args[1]) if number.op == "num" else ""
        if "." not in written or "e" in written.lower() or len(written.replace(".", "").lstrip("0")) < _ROUNDED:
            continue
        if value is not None and pow(10, value.denominator.bit_length(), value.denominator) == 0:
            continue  # it is a decimal, too: its denominator has no prime but 2 and 5
        places = len(written.partition(".")[2])
        with mp.workdps(30 + len(written)):
            try:
                found = Value({}, 100).of(node)
            except NoValue:
                continue
            if mp.im(found) == 0 and abs(mp.re(found) * 10**places - sign * int(written.replace(".", ""))) <= 0.5:
                return True
    return False
