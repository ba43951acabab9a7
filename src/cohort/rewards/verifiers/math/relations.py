"""Equations and inequalities: the value behind a name, and when two of them say the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise, product
from typing import Any

from mpmath import mp

from cohort.rewards.verifiers.math.digits import NoValue, number_at
from cohort.rewards.verifiers.math.form import COLLECTIONS
from cohort.rewards.verifiers.math.node import Node, changed, negative, number, symbols, walk
from cohort.rewards.verifiers.math.value import same_value

Same = Callable[[Node, Node], bool]
_OF_NAMES = (negative(number(1)), Node("sym", ("T",)), Node("sym", ("c",)))  # exponents that belong to a name
_POINT = (Fraction(1373, 1009), Fraction(-757, 613), Fraction(2221, 877), Fraction(-3559, 1427), Fraction(911, 1663))


def spread(node: Node) -> Node:
    """A plus-minus as the list of what it stands for, and (x, y) = (1, 2) as two equations."""
    signs = [part for part in walk(node) if part.op in ("pm", "mp")]
    if node.op in COLLECTIONS and signs and not any(part.op == "mp" for part in signs):  # 0, \\pm 1
        spreads = [spread(item) for item in node.args]
        return Node(node.op, tuple(item for one in spreads for item in (one.args if one.op in COLLECTIONS else (one,))))
    if signs and len(signs) <= 3:
        tied = any(part.op == "mp" for part in signs)
        choices = [(s,) * len(signs) for s in (1, -1)] if tied else product((1, -1), repeat=len(signs))
        found = [_chosen(node, choice) for choice in choices]
        return Node("list", tuple(item for one in found for item in (one.args if one.op in COLLECTIONS else (one,))))
    if node.op == "rel" and node.args[0] == ("=",) and node.args[1].op == node.args[2].op == "tuple":
        left, right = node.args[1].args, node.args[2].args
        if len(left) == len(right):
            return Node("list", tuple(Node("rel", (("=",), name, value)) for name, value in zip(left, right)))
    if node.op in COLLECTIONS and _is_equation(node.args[0]) and not any(item.op == "rel" for item in node.args[1:]):
        *start, value = node.args[0].args  # n = 1, 2
        return Node("list", tuple(Node("rel", (*start, item)) for item in (value, *node.args[1:])))
    return node


def _chosen(node: Node, choice: tuple[int, ...]) -> Any:
    """The node with these signs in place of each plus-minus, in their order."""
    signs = iter(choice)

    def signed(part: Node) -> Node | None:
        if part.op not in ("pm", "mp"):
            return None
        sign = next(signs) * (1 if part.op == "pm" else -1)
        inner: Node = changed(part.args[0], signed)
        return inner if sign > 0 else negative(inner)

    return changed(node, signed)


def without_names(gold: Node, answer: Node) -> tuple[Node, Node]:
    """Both without the name before them, `x = 5` as 5, unless both have one."""
    if gold.op == answer.op == "rel" and _is_equation(gold) and _is_equation(answer):
        return gold, answer
    named = [_values(node) for node in (gold, answer)]
    if named[0] is not None and named[1] is not None:
        return gold, answer
    return named[0] or gold, named[1] or answer


def _is_equation(node: Node) -> bool:
    return node.op == "rel" and set(node.args[0]) == {"="}


def _values(node: Node) -> Node | None:
    """What a node of equations names: the value, a list of values for one name, a tuple for several; else None."""
    if node.op == "rel":
        return _value(node)
    if node.op not in COLLECTIONS or not any(item.op == "rel" for item in node.args):
        return None
    values = [_value(item) if _is_equation(item) else None for item in node.args]
    if None in values:
        return None
    names = [re.sub(r"_.*", "", str(item.args[1].args[0])) for item in node.args]
    whole = tuple(value for value in values if value is not None)
    if len(set(names)) == 1:
        return Node("list", whole)
    named = sorted(zip(node.args, whole), key=lambda pair: repr(pair[0].args[1]))
    return Node("tuple", tuple(value for _, value in named))


def _value(node: Node) -> Node | None:
    """The value of `name = value`; of a chain, and of an equation of numbers, if what it says is true."""
    ops, name, *parts = node.args
    if ops in (("in",), ("≈",)):
        return parts[0] if _is_name(name) else None
    if set(ops) != {"="}:
        return None
    if not _is_name(name) and parts[-1].op != "matrix":  # A^2 names a matrix; x^2 = 25 is not solved
        if symbols(node):
            return None
        parts = [name, *parts]
    if any(not same_value(a, b) for a, b in pairwise(parts) if _computes(a) and _computes(b)):
        return None
    return parts[-1]


def _computes(node: Node) -> bool:
    return not any(part.op in ("tuple", "set", "interval", "matrix", "list", "unit", "text") for part in walk(node))


def _is_name(node: Node) -> bool:
    """Whether a node only names what follows: x, f(2), m + n, A^{-1}, |AB|, \\angle ABC, the area; not 7 or 2x."""
    if node.op in ("text", "sym") or (node.op == "const" and node.args[0] in ("i", "e", "pi")):
        return True
    if node.op == "call":
        return node.args[0] not in ("fact", "root", "binom") and bool(symbols(node) or node.args[0][0] in "fghFGH")
    if node.op in ("open", "unit"):
        return bool(symbols(node)) or node.op == "open"
    if node.op == "pow":
        return _is_name(node.args[0]) and node.args[1] in _OF_NAMES
    if node.op in ("add", "mul", "div", "neg", "tuple"):
        return all(_is_name(arg) or (node.op == "mul" and arg.op in ("list", "tuple", "rel")) for arg in node.args)
    return False


def same_relation(gold: Node, answer: Node, same: Same) -> bool:
    """Whether two relations, or chains of them, say the same."""
    ops, *parts = gold.args
    other_ops, *others = answer.args
    if set(ops) == {"="} == set(other_ops):
        if len(parts) != len(others):
            return False
        if len(parts) > 2:
            return all(map(same, parts, others)) or all(map(same, parts, reversed(others)))
        return _same_equation(parts, others, same)
    one, two = _pairs(ops, parts), _pairs(other_ops, others)
    if len(one) != len(two):
        return False
    for op, left, right in one:
        match = next(
            (i for i, pair in enumerate(two) if pair[0] == op and _same_inequality(op, (left, right), pair[1:], same)),
            None,
        )
        if match is None:
            return False
        del two[match]
    return True


def _pairs(ops: Any, parts: list[Node]) -> list[tuple[str, Node, Node]]:
    """A chain as single relations, each from the smaller to the larger side."""
    turned = {">": "<", ">=": "<=", "supset": "subset", "supset=": "subset="}
    return [(turned[op], b, a) if op in turned else (op, a, b) for op, a, b in zip(ops, parts, parts[1:])]


def _same_equation(gold: list[Node], answer: list[Node], same: Same) -> bool:
    for left, right in (answer, answer[::-1]):
        if (_is_name(gold[0]) and left == gold[0]) or (_is_name(gold[1]) and right == gold[1]):
            return same(gold[0], left) and same(gold[1], right)
    for left, right in (answer, answer[::-1]):
        if same(gold[0], left) and same(gold[1], right):
            return True
    if not all(map(_computes, (*gold, *answer))) or not symbols(Node("x", tuple(gold))):
        return False
    if gold[0].op == "sym" and not symbols(gold[1]):
        return False  # it is solved, and the answer is not
    return _proportional(_cleared(gold), _cleared(answer)) != 0


def _same_inequality(op: str, gold: tuple[Node, Node], answer: tuple[Node, ...], same: Same) -> bool:
    if same(gold[0], answer[0]) and same(gold[1], answer[1]):
        return True
    if op not in ("<", "<=", "!=") or not all(map(_computes, (*gold, *answer))):
        return False
    solved = (gold[0].op == "sym" and not symbols(gold[1])) or (gold[1].op == "sym" and not symbols(gold[0]))
    ratio = 0 if solved else _proportional(_difference(*gold), _difference(*answer))
    return ratio > 0 or (op == "!=" and ratio < 0)


def _difference(left: Node, right: Node) -> Node:
    return Node("add", (left, Node("neg", (right,))))


def _cleared(sides: list[Node]) -> Node:
    """left - right, times what stands below a fraction and has variables in it."""
    below = [part.args[1] for side in sides for part in _terms(side) if part.op == "div" and symbols(part.args[1])]
    difference = _difference(*sides)
    return Node("mul", (difference, *dict.fromkeys(below))) if below else difference


def _terms(node: Node) -> tuple[Node, ...]:
    if node.op == "neg":
        return _terms(node.args[0])
    return tuple(term for arg in node.args for term in _terms(arg)) if node.op == "add" else (node,)


def _proportional(one: Node, other: Node) -> int:
    """The sign of c where `one` is c times `other` with a constant c; 0 if it is not, or if one of them is nothing."""
    names = sorted(symbols(one))
    if not names or set(names) != symbols(other) or len(names) > len(_POINT):
        return 0
    point = dict(zip(names, _POINT))
    try:
        with mp.workdps(40):
            first, second = number_at(one, point), number_at(other, point)
    except NoValue:
        return 0
    tiny = mp.mpf(10) ** -25
    if abs(first) < tiny or abs(second) < tiny or mp.im(first / second) != 0:
        return 0
    values = {name: Node("num", (value, "")) for name, value in point.items()}
    fixed = [changed(node, lambda part: values[part.args[0]] if part.op == "sym" else None) for node in (one, other)]
    same = same_value(Node("mul", (one, fixed[1])), Node("mul", (other, fixed[0])))
    return (1 if mp.re(first / second) > 0 else -1) if same else 0
