"""Sets of real numbers, however they are written: intervals, unions, inequalities, set builders, what is left out.

A set is where it may change (its ends) and a test of membership. Two sets are equal if every end of either, and a point
in every gap between them, is in both or in neither.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

from mpmath import mp

from cohort.rewards.verifiers.math.digits import NoValue, number_at
from cohort.rewards.verifiers.math.node import INFINITY, Node, open_interval, symbols

_DIGITS = 60
_NEAR = mp.mpf(10) ** -40
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}


class RealSet(NamedTuple):
    """Points where membership may change, and who is a member."""

    ends: tuple[Any, ...]
    has: Callable[[Any], bool]


_NONE, _ALL = RealSet((), lambda x: False), RealSet((), lambda x: True)


def real_set(node: Node) -> RealSet | None:
    """The set of real numbers that `node` describes, None if it describes none that is understood here."""
    if len(symbols(node)) > 1:
        return None
    with mp.workdps(_DIGITS):
        try:
            return _read(open_interval(node))
        except NoValue:
            return None


def same_set(left: RealSet, right: RealSet) -> bool:
    """Whether two sets have the same members."""
    with mp.workdps(_DIGITS):
        ends: list[Any] = []
        for end in sorted(end for end in (*left.ends, *right.ends) if mp.isfinite(end)):
            if not ends or not _equal(end, ends[-1]):
                ends.append(end)
        gaps = [(a + b) / 2 for a, b in pairwise(ends)]
        outside = [ends[0] - 1, ends[-1] + 1] if ends else [mp.mpf(0)]
        return all(left.has(point) == right.has(point) for point in (*ends, *gaps, *outside))


def describes_numbers(node: Node) -> bool:
    """Whether a node says which numbers, rather than being a number, a pair or an equation itself."""
    if node.op == "rel":
        return node.args[0] != ("=",) * len(node.args[0])
    return node.op in ("interval", "setor", "setand", "setminus", "numset", "empty", "builder", "set") or (
        node.op in ("and", "or", "list") and all(map(describes_numbers, node.args))
    )


def _equal(left: Any, right: Any) -> bool:
    return bool(left == right or (mp.isfinite(left - right) and abs(left - right) <= _NEAR * (1 + abs(left))))


def _end(node: Node) -> Any:
    if symbols(node):
        raise NoValue("its ends are no numbers")
    value = number_at(node, {})
    if mp.im(value) != 0:
        raise NoValue("its ends are not real")
    return mp.re(value)


def _read(node: Node) -> RealSet | None:
    op, args = node
    if op == "add" and len(args) == 2 and args[1].op == "neg":  # R - {0}
        op, args = "setminus", (args[0], args[1].args[0])
    if op == "empty":
        return _NONE
    if op == "numset":
        return _numset(args[0])
    if op == "interval":
        low, high = _end(args[0]), _end(args[1])
        with_low, with_high = args[2:]
        if low > high or (_equal(low, high) and not (with_low and with_high)):
            return None
        return RealSet((low, high), lambda x: _between(x, low, high, with_low, with_high))
    if op == "set" and any(arg.op in ("set", "empty", "tuple", "interval", "setor") for arg in args):
        return None
    if op == "set":
        points = [_end(arg) for arg in args]
        return RealSet(tuple(points), lambda x: any(_equal(x, point) for point in points))
    if op in ("setor", "setand", "setminus", "or", "and", "list"):
        parts = [_read(arg) for arg in args]
        found = [part for part in parts if part is not None]
        if len(found) < len(parts):
            return None
        if op == "list" and any(arg.op == "set" for arg in args):  # {1, 2}, {3} are two sets
            return None
        if op == "list":  # x > 1, x < 3 holds both; x < 1, x > 3 can only be one or the other
            both = _joined("and", found)
            alone = any(arg.op != "rel" for arg in args) or same_set(both, _NONE)
            return _joined("or", found) if alone else both
        return _joined(op, found)
    if op == "builder":
        element, condition = args
        inner = _read(condition)
        outer: RealSet | None = _ALL
        if element.op == "rel" and element.args[0] == ("in",):  # \{x \in R \mid x > 2\}
            element, outer = element.args[1], _read(element.args[2])
        known = element.op == "sym" and symbols(condition) <= symbols(element)
        return _joined("and", [outer, inner]) if known and inner is not None and outer is not None else None
    return _relation(args[0], args[1:]) if op == "rel" else None


def _joined(op: str, parts: list[RealSet]) -> RealSet:
    ends = tuple(end for part in parts for end in part.ends)
    if op in ("setor", "or"):
        return RealSet(ends, lambda x: any(part.has(x) for part in parts))
    if op == "setminus":
        return RealSet(ends, lambda x: parts[0].has(x) and not any(part.has(x) for part in parts[1:]))
    return RealSet(ends, lambda x: all(part.has(x) for part in parts))


def _numset(name: str) -> RealSet | None:
    if name == "R":
        return _ALL
    if name in ("R^+", "R_+", "R^{+}", "R_{>0}"):
        return RealSet((mp.mpf(0),), lambda x: x > 0 and not _equal(x, 0))
    if name in ("R^-", "R_-"):
        return RealSet((mp.mpf(0),), lambda x: x < 0 and not _equal(x, 0))
    return None


def _between(x: Any, low: Any, high: Any, with_low: bool, with_high: bool) -> bool:
    if _equal(x, low):
        return with_low
    return with_high if _equal(x, high) else bool(low < x < high)


def _relation(ops: tuple[str, ...], parts: tuple[Node, ...]) -> RealSet | None:
    """A chain of relations of one variable, each linear in it."""
    found = []
    for op, left, right in zip(ops, parts, parts[1:]):
        if op in ("in", "notin"):
            inner = _read(right)
            if left.op != "sym" or inner is None:
                return None
            found.append(inner if op == "in" else _joined("setminus", [_ALL, inner]))
            continue
        if op not in ("<", ">", "<=", ">=", "!=", "="):
            return None
        if INFINITY in (left, right, *left.args, *right.args):
            found.append(_relation_to_infinity(op, left, right))
            continue
        if (size := _size(op, left, right) or _size(_TURNED[op], right, left)) is not None:
            found.append(size)
            continue
        root = linear_root(Node("add", (left, Node("neg", (right,)))))
        if root is None:
            return None
        slope, at = root
        sign = op if slope > 0 or op in ("!=", "=") else _TURNED[op]
        found.append(RealSet((at,), _test(sign, at)))
    return _joined("and", found)


def _size(op: str, left: Node, right: Node) -> RealSet | None:
    """|x| < 3 as x < 3 and -x < 3; |x| > 3 as x > 3 or -x > 3."""
    if left.op != "call" or left.args[0] != "abs" or left.args[1].op != "sym":
        return None
    parts = [_relation((op,), (side, right)) for side in (left.args[1], Node("neg", (left.args[1],)))]
    joined = "and" if op in ("<", "<=", "!=") else "or"
    return None if None in parts else _joined(joined, [part for part in parts if part is not None])


def _relation_to_infinity(op: str, left: Node, right: Node) -> RealSet:
    """x < \\infty leaves nothing out; what is said against it is true of no number."""
    at_end = {"<": right, "<=": right, ">": left, ">=": left}.get(op)
    true = at_end == INFINITY or (at_end is not None and (left if at_end is right else right).op == "neg")
    return RealSet((), lambda x: true)


def _test(op: str, at: Any) -> Callable[[Any], bool]:
    def has(x: Any) -> bool:
        if _equal(x, at):
            return op in ("=", "<=", ">=")
        return op == "!=" or (op[0] == "<" and x < at) or (op[0] == ">" and x > at)

    return has


def linear_root(node: Node) -> tuple[int, Any] | None:
    """The sign of the slope and the root of an expression that is linear in its one variable."""
    names = symbols(node)
    if len(names) != 1:
        return None
    (name,) = names
    values = [number_at(node, {name: Fraction(point)}) for point in (0, 1, 2, 5, Fraction(-7, 3))]
    slope = values[1] - values[0]
    if any(mp.im(value) != 0 for value in values) or _equal(slope, 0):
        return None
    if not all(_equal(values[0] + slope * x, value) for x, value in zip((2, 5, mp.mpf(-7) / 3), values[2:])):
        return None
    return (1 if slope > 0 else -1), -values[0] / slope
