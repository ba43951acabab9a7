"""Comparing two answers, kind by kind. This runs in a guarded child: see `cohort.rewards.guarded`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from cohort.rewards.verifiers.math.form import COLLECTIONS, form_of, is_collection, unfinished
from cohort.rewards.verifiers.math.node import Node, Unread, Worded, number, symbols
from cohort.rewards.verifiers.math.reader import read
from cohort.rewards.verifiers.math.relations import same_relation, spread, without_names
from cohort.rewards.verifiers.math.sets import describes_numbers, real_set, same_set
from cohort.rewards.verifiers.math.value import has_value, same_value
from cohort.rewards.verifiers.words import are_units, changes_the_value, names, unit_words

_GROUPS = re.compile(r"[0-9],[0-9]{3}(?![0-9])")
_BARE_UNIT = re.compile(r"(-?[0-9.]+)\s*([A-Za-z]{1,3}(?:(?:[/*. ]|\s*\^)\s*\{?-?(?:[A-Za-z]{1,3}|[0-9])\}?)*)")
_NO_EXPRESSIONS = COLLECTIONS | frozenset(names(
    "text date empty numset interval tuple set matrix rel builder setor setand setminus cases time base quantities"
))  # fmt: skip


class How(NamedTuple):
    """What a reward may be told to look at: see its parameters."""

    units: bool = False
    ordered: bool = True


def warm_up() -> None:
    """Called once before children are forked."""
    for gold, answer in (("x^2+2x+1", "(x+1)^2"), ("\\sqrt{2}", "1.41421356"), ("(1,2]", "1<x\\le 2"), ("x=1", "2")):
        compare(gold, answer)


def compare(gold: str, answer: str, same_form: bool = False, units: bool = False, ordered: bool = True) -> str:
    """ "right" or "wrong"; "unparsed" if `answer`, "gold" if `gold` cannot be read; "refused" if the answer leaves work
    undone, or is to have the `same_form` and is built in another way than the gold answer.
    """
    how = How(units, ordered)
    try:
        expected = read(gold)
    except Unread:
        return "gold"
    try:
        found = read(answer)
    except Worded:
        return "refused"
    except Unread:
        return "unparsed"
    expected, found = _with_bare_unit(expected, gold, found), _with_bare_unit(found, answer, expected)
    label = _judge(expected, found, same_form, how)
    with suppress(Unread):  # commas as what parts a list may leave nothing that can be read
        if label != "right" and is_collection(expected) and _GROUPS.search(answer):
            label = _judge(expected, read(answer, lists=True), same_form, how)
        if label != "right" and is_collection(found) and _GROUPS.search(gold):
            label = _judge(read(gold, lists=True), found, same_form, how)
    return label


def _with_bare_unit(node: Node, text: str, other: Node) -> Node:
    """9.8 m/s^2 as a quantity, beside one, or beside a number if they are letters of units."""
    bare = _BARE_UNIT.fullmatch(text)
    of_unit = other.op == "unit" or (other.op == "num" and bare is not None and "/" in bare[2] and are_units(bare[2]))
    if bare is not None and of_unit and node.op != "unit":
        with suppress(Unread):  # 2pi is a number, and \text{pi} no unit
            return read(rf"{bare[1]} \text{{{bare[2]}}}")
    return node


def problem_of(text: str) -> str | None:
    """Why `text` is no gold answer, None if it is one."""
    try:
        found = read(text)
    except Unread as why:
        return f"it cannot be read as mathematics ({why}); write it as LaTeX, or score texts with exact_text"
    if not all(map(has_value, _expressions(found))):
        return "it cannot be read as mathematics (it divides by zero, or has no value)"
    return None


def _expressions(node: object) -> Iterator[Node]:
    """The largest parts of a node that should have a value."""
    if isinstance(node, Node) and node.op in ("div", "pow", "call", "mul", "add", "neg"):
        yield node
    elif isinstance(node, tuple):
        for part in node.args if isinstance(node, Node) else node:
            yield from _expressions(part)


def _judge(gold: Node, answer: Node, same_form: bool, how: How) -> str:
    if gold == answer:
        return "right"
    gold, answer = without_names(spread(gold), spread(answer))
    gold, answer = _as_unit(gold, answer), _as_unit(answer, gold)
    if unfinished(answer, gold):
        return "refused"
    if same_form and form_of(answer) != form_of(gold):
        return "refused"
    return "right" if same(gold, answer, how) else "wrong"


def _as_unit(node: Node, other: Node) -> Node:
    """`5 m` as five metres where the other one says `\\text{m}`; else the letter is a factor."""
    if node.op != "mul" or other.op != "unit" or node.args[-1] != ("sym", (other.args[1],)):
        return node
    rest = node.args[:-1]
    return Node("unit", (rest[0] if len(rest) == 1 else Node("mul", rest), other.args[1]))


def same(gold: Node, answer: Node, how: How) -> bool:
    """Whether two answers are equal, as things of their kind."""
    if gold == answer:
        return True
    if "unit" in (gold.op, answer.op):
        return _same_quantity(gold, answer, how)
    ops = {gold.op, answer.op}
    if ops & {"time", "ratio", "base"}:
        return _same_notation(gold, answer, how)
    if ops & {"text", "date"}:
        return False
    if gold.op == answer.op == "rel" and same_relation(gold, answer, lambda a, b: same(a, b, how)):
        return True
    of_numbers = ops != {"set", "tuple"} and (describes_numbers(gold) or describes_numbers(answer))
    if of_numbers and (verdict := _same_set(gold, answer)) is not None:
        return verdict
    for one, other in ((gold, answer), (answer, gold)):
        alone = other.op not in COLLECTIONS | {"tuple"} and not describes_numbers(other)
        if one.op == "set" and len(one.args) == 1 and alone:
            return same(one.args[0], other, how)
    if gold.op == answer.op and gold.op.startswith("logic"):
        return _same_items(gold, answer, how)
    if ops <= COLLECTIONS | {"set", "tuple", "interval", "quantities"}:
        return _same_items(gold, answer, how)
    if gold.op == answer.op == "matrix":
        shapes = [[len(row) for row in node.args] for node in (gold, answer)]
        return shapes[0] == shapes[1] and _same_parts(gold.args, answer.args, how)
    if gold.op == answer.op and gold.op in ("setor", "setand", "setminus"):
        pairs = [answer.args, answer.args[::-1]] if gold.op != "setminus" else [answer.args]
        return any(_same_parts(gold.args, parts, how) for parts in pairs)
    if gold.op == answer.op and gold.op in ("builder", "cases"):
        return _same_parts(gold.args, answer.args, how)
    if ops & _NO_EXPRESSIONS or any(op.startswith("logic") for op in ops):
        return False
    return same_value(gold, answer)


def _same_parts(gold: Any, answer: Any, how: How) -> bool:
    """Whether two nodes, or all the parts of two tuples in their order, are equal."""
    if isinstance(gold, Node) and isinstance(answer, Node):
        return same(gold, answer, how)
    of_one_length = isinstance(gold, tuple) and isinstance(answer, tuple) and len(gold) == len(answer)
    return of_one_length and all(_same_parts(a, b, how) for a, b in zip(gold, answer))


def _same_quantity(gold: Node, answer: Node, how: How) -> bool:
    """Numbers with what stands behind them. Units are compared if that is asked for; other words must agree."""
    value, said = _parted(gold)
    other, says = _parted(answer)
    expected, found = unit_words(said), unit_words(says)
    if "time" in (value.op, other.op):  # 8 a.m. is no 8 of anything
        return False
    if changes_the_value(said) or changes_the_value(says):
        return expected == found and same(value, other, how)
    if how.units and said and expected != found:
        return False
    differ = expected and found and not (expected <= found or found <= expected)
    if differ and not (are_units(said) and are_units(says)):
        return False
    return same(value, other, how)


def _parted(node: Node) -> tuple[Node, str]:
    return (node.args[0], str(node.args[1])) if node.op == "unit" else (node, "")


def _same_notation(gold: Node, answer: Node, how: How) -> bool:
    """Times of day, ratios and numerals of a base."""
    if gold.op == "base":
        return answer.op == "num" and str(answer.args[1]).lstrip("0") == gold.args[0]
    if gold.op == answer.op == "time":
        return _same_time(gold, answer)
    if gold.op == "time" and gold.args[1:3] == (0, 0) and gold.args[3]:
        return answer.op == "num" and answer.args[0] == (gold.args[0] % 12 or 12)
    if "base" in (gold.op, answer.op) or ("time" in (gold.op, answer.op) and "ratio" not in (gold.op, answer.op)):
        return False
    one, other = _terms(gold), _terms(answer)
    if len(one) != len(other) or same_value(one[0], number(0)):
        return False
    return all(same_value(Node("mul", (a, other[0])), Node("mul", (b, one[0]))) for a, b in zip(one[1:], other[1:]))


def _terms(node: Node) -> tuple[Node, ...]:
    if node.op == "ratio":
        return node.args
    if node.op == "time":
        return tuple(Node("num", (part, str(part))) for part in node.args[:2])
    one = Node("num", (1, "1"))
    return node.args if node.op == "div" else (node, one)


def _same_time(gold: Node, answer: Node) -> bool:
    (*one, half), (*other, other_half) = gold.args, answer.args
    if one == other:
        return True
    bare = other if not other_half else one
    return bool(half) != bool(other_half) and one[1:] == other[1:] and one[0] % 12 == other[0] % 12 and bare[0] <= 12


def _same_set(gold: Node, answer: Node) -> bool | None:
    """Whether both are one set of real numbers; None if one of them is none that is understood."""
    named = [
        symbols(node) if node.op not in ("interval", "setor", "set", "numset", "builder") else frozenset()
        for node in (gold, answer)
    ]
    if all(named) and named[0] != named[1]:
        return None
    left, right = real_set(gold), real_set(answer)
    return None if left is None or right is None else same_set(left, right)


def _same_items(gold: Node, answer: Node, how: How) -> bool:
    """Lists, sets, tuples and intervals, item by item."""
    if "interval" in (gold.op, answer.op):
        if gold.op == answer.op:
            return gold.args[2:] == answer.args[2:] and _same_parts(gold.args[:2], answer.args[:2], how)
        if gold.op != "list" or answer.args[2:] != (True, True):
            return False
        answer = Node("tuple", answer.args[:2])
    ops, one, other = {gold.op, answer.op}, list(gold.args), list(answer.args)
    if "quantities" in ops:
        return ops <= {"quantities", "list"} and _same_parts(gold.args, answer.args, How(True, True))
    if len({unit_words(_parted(item)[1]) for item in one} - {frozenset()}) > 1:  # 2 hours and 30 minutes
        if not any(item.op == "unit" for item in other):
            return _same_parts(gold.args, answer.args, how)
        how = How(True, how.ordered)
    if how.ordered and "tuple" in ops:
        return "set" not in ops and _same_parts(gold.args, answer.args, how)
    if "set" in ops:
        one, other = _distinct(one, how), _distinct(other, how)
    if len(one) != len(other):
        return False
    for item in one:
        match = next((index for index, candidate in enumerate(other) if same(item, candidate, how)), None)
        if match is None:
            return False
        del other[match]
    return True


def _distinct(items: list[Node], how: How) -> list[Node]:
    found: list[Node] = []
    for item in items:
        if not any(same(item, other, how) for other in found):
            found.append(item)
    return found
