"""The value of an expression at a point, to the digits that mpmath works with; and what has none."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import mpmath
from mpmath import mp

from cohort.rewards.verifiers.math.node import Node
from cohort.rewards.verifiers.words import names

_TRIGONOMETRIC = frozenset(names("sin cos tan cot sec csc"))
_OF_LARGE = frozenset(names("abs ln log lg log_base"))  # functions that large numbers cost no more


class NoValue(ValueError):  # noqa: N818
    """An expression has no value, or one beyond what is computed."""


def number_at(node: Node, point: dict[str, Fraction]) -> Any:
    """The value at a point, in mpmath's working precision. Raises NoValue."""
    return Value(point, 100).of(node)


class Value:
    """Values at one point, in mpmath's working precision, with the sizes of all parts and whether they were real."""

    def __init__(self, point: dict[str, Fraction], percent: int) -> None:
        self.point, self.percent = point, percent
        self.lowest = self.highest = 0
        self.real = True

    def of(self, node: Any, angle: bool = False) -> Any:
        """The value of `node`; of degrees in radians within an `angle`. Raises NoValue."""
        try:
            value = self._value(node, angle)
        except (ZeroDivisionError, ValueError, OverflowError, mpmath.libmp.NoConvergence) as error:
            raise error if isinstance(error, NoValue) else NoValue("it has no value, or divides by zero") from None
        if mp.isnan(value):
            raise NoValue("it has no value")
        if isinstance(value, mpmath.mpc):
            if abs(value.imag) > abs(value) * mp.mpf(10) ** (5 - mp.dps):
                self.real = False
            else:
                value = value.real
        if value != 0 and mp.isfinite(value):
            size = int(mp.mag(value) * 0.30103)
            if abs(size) > 10**6:
                raise NoValue("it is too large")
            self.lowest, self.highest = min(self.lowest, size), max(self.highest, size)
        return value

    def _value(self, node: Any, angle: bool) -> Any:
        op, args = node
        if op == "num":
            return mp.mpf(args[0].numerator) / args[0].denominator
        if op == "const":
            return {"pi": mp.pi, "e": mp.e, "inf": mp.inf}[args[0]] + 0 if args[0] != "i" else mp.mpc(0, 1)
        if op == "sym":
            value = self.point.get(str(args[0]))
            return mp.mpf(value.numerator) / value.denominator if value is not None else self._named(node)
        if op == "call":
            return self._call(str(args[0]), args[1:])
        if op not in ("degree", "percent", "neg", "add", "mul", "div", "pow"):
            return self._named(node)
        parts = [self.of(arg, angle) for arg in args]
        if op == "degree":
            return parts[0] * mp.pi / 180 if angle else parts[0]
        if op == "percent":
            return parts[0] / self.percent
        if op == "neg":
            return -parts[0]
        if op == "add":
            return sum(parts[1:], parts[0])
        if op == "div":
            if parts[1] == 0:
                raise NoValue("it divides by zero")
            return parts[0] / parts[1]
        if op == "pow":
            return self._raised(*parts)
        value = parts[0]
        for part in parts[1:]:
            value = value * part
        return value

    def _raised(self, base: Any, power: Any) -> Any:
        if base == 0:
            if mp.re(power) < 0:
                raise NoValue("it divides by zero")
            return mp.mpf(int(power == 0))
        if mp.isinf(base) or mp.isinf(power):
            raise NoValue("it has no value")
        if abs(power) * (abs(mp.log(abs(base))) + 1) > 2 * 10**6:
            raise NoValue("it is too large")
        return mp.power(base, power)

    def _call(self, name: str, args: tuple[Any, ...]) -> Any:
        values = [self.of(arg, name in _TRIGONOMETRIC) for arg in args]
        if name == "root":
            value, index = values
            if index == 0:
                raise NoValue("it has no value")
            if mp.im(value) == 0 and mp.re(value) < 0 and index == int(mp.re(index)) and int(mp.re(index)) % 2:
                return -self._raised(-value, 1 / index)
            return mp.sqrt(value) if index == 2 else self._raised(value, 1 / index)
        function = _CALLS.get(name)
        if function is None:
            return self._named(Node(name, tuple(mp.nstr(value, 25) for value in values)))
        if name not in _OF_LARGE and any(not mp.isinf(v) and abs(v) > 10**5 for v in values):
            raise NoValue("it is too large")
        try:
            return function(*values)
        except TypeError:  # a sine of two numbers
            raise NoValue("it has no value") from None

    def _named(self, node: Any) -> Any:
        """A value for what is compared by its name alone: an unknown function, an integral."""
        return mp.mpf(random.Random(repr(_bare(node))).randrange(3 * 10**29, 13 * 10**29)) / 10**30


def _bare(node: Any) -> Any:
    return tuple(map(_bare, node)) if isinstance(node, tuple) else node


def _log(value: Any, base: Any = None) -> Any:
    if value == 0:
        raise NoValue("it has no value")
    return mp.log(value) if base is None else mp.log(value) / mp.log(base)


_CALLS: dict[str, Any] = {
    **{name: getattr(mp, name) for name in names("sin cos tan cot sec csc sinh cosh tanh coth exp")},
    **{f"arc{name}": getattr(mp, f"a{name}") for name in names("sin cos tan cot sec csc sinh")},
    "arcosh": mp.acosh, "artanh": mp.atanh, "ln": _log, "log": lambda v: _log(v, 10), "lg": lambda v: _log(v, 10),
    "log_base": _log, "abs": abs, "fact": lambda v: mp.gamma(v + 1), "binom": mp.binomial, "ln_base": _log,
}  # fmt: skip
