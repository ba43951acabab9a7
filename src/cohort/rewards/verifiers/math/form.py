"""What is no answer by its form alone: work that is left undone, more values than asked for, parts that add nothing."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from cohort.rewards.verifiers.math.digits import NoValue
from cohort.rewards.verifiers.math.node import IMAGINARY, Node, symbols, walk
from cohort.rewards.verifiers.math.sets import describes_numbers
from cohort.rewards.verifiers.math.value import exact

COLLECTIONS = frozenset(("list", "or", "and"))


def is_collection(node: Node) -> bool:
    """Whether a node holds several answers, or one of several parts."""
    return node.op in COLLECTIONS | {"set", "tuple", "interval", "quantities"}


def unfinished(answer: Node, gold: Node) -> bool:
    """Whether `answer` is no answer by its form: not worked out, or not one, as far as `gold` is.

    It is not with an integral, a sum, a determinant, a limit or a derivative, with more relations or several values,
    with something that adds nothing (+0), or with a variable, that the gold answer does not have. Where that is a
    number, it may be written with one power, root, fraction or the like: 3/4, 2^{10}, 5!.
    """
    asked_for = {part.args[0] for part in walk(gold) if part.op == "open"}
    if any(part.op == "open" and part.args[0] not in asked_for for part in walk(answer)):
        return True
    ranges = describes_numbers(gold) or (gold.op == "tuple" and len(gold.args) == 2)
    if ranges and describes_numbers(answer):
        if _is_solved(gold) and not _is_solved(answer):
            return True
        relations = [len(part.args[0]) for part in walk(answer) if part.op == "rel"]
        return len(symbols(answer) - symbols(gold)) > 1 or (
            any(count > 2 for count in relations) and answer.op == "rel"
        )
    if _relations(answer) > _relations(gold):
        return True
    if answer.op in COLLECTIONS and not (is_collection(gold) or _relations(gold) > 1):
        return True
    if symbols(answer) - symbols(gold):
        return True
    if _adds_nothing(answer) and not _adds_nothing(gold):
        return True
    if gold.op == answer.op == "rel" and _is_numeral(gold.args[-1]):  # x = 5
        return _is_computed(answer) and not _is_computed(gold)
    return all(map(_is_numeral, _items(gold))) and not all(map(_is_written_as_number, _items(answer)))


def _items(node: Node) -> tuple[Node, ...]:
    """The parts of a list, a set, a pair or a matrix; what is none is its own part."""
    if node.op == "matrix":
        return tuple(entry for row in node.args for entry in row)
    return node.args if node.op in COLLECTIONS | {"set", "tuple"} else (node,)


def _is_computed(node: Node) -> bool:
    return any(part.op in ("add", "mul") for part in walk(node))


def form_of(node: Node) -> str:
    """How an answer is built: as a number, a sum, a product ..."""
    node = _bare(node)
    if node.op in COLLECTIONS | {"set"}:
        return "set"
    with suppress(NoValue):  # 1/0 is written as a quotient, whatever it is worth
        if node.op in ("num", "neg", "div", "pow", "percent") and exact(node) is not None:
            return "number"
    return "product" if node.op in ("mul", "pow", "div", "neg") else "sum" if node.op == "add" else node.op


def _bare(node: Node) -> Node:
    return _bare(node.args[0]) if node.op in ("unit", "degree", "percent") else node


def _relations(node: Node) -> int:
    return sum(len(part.args[0]) for part in walk(node) if part.op == "rel")


def _is_number(node: Any, value: int) -> bool:
    return bool(node.op == "num" and node.args[0] == value)


def _is_scientific(node: Node) -> bool:
    return (
        node.op == "mul"
        and len(node.args) == 2
        and node.args[0].op == "num"
        and node.args[1].op == "pow"
        and _is_number(node.args[1].args[0], 10)
        and _bare_sign(node.args[1].args[1]).op == "num"
    )


def _is_solved(node: Node) -> bool:
    """Whether a variable stands alone in every relation, or its absolute value."""
    return not any(
        symbols(side) and side.op != "sym" and not (side.args[0] == "abs" and side.args[1].op == "sym")
        for part in walk(node)
        if part.op == "rel"
        for side in part.args[1:]
    )


def _bare_sign(node: Node) -> Node:
    return node.args[0] if node.op == "neg" else node


def _adds_nothing(node: Node) -> bool:
    for part in walk(node):
        if part.op == "add" and any(_is_number(_bare_sign(arg), 0) for arg in part.args):
            return True
        if part.op == "mul" and not _is_scientific(part) and any(_is_number(arg, 1) for arg in part.args):
            return True
        if part.op in ("pow", "div") and _is_number(part.args[1], 1) and not _is_numeral(part):
            return True
    return False


def _is_numeral(gold: Node) -> bool:
    gold = _bare_sign(_bare(gold))
    return gold.op == "num" or (gold.op == "div" and all(_bare_sign(arg).op == "num" for arg in gold.args))


def _is_written_as_number(answer: Node) -> bool:
    answer = _bare(_bare_sign(answer))
    if _is_scientific(answer):
        return True
    operations = [part for part in walk(answer) if part.op in ("add", "mul", "div", "pow", "call")]
    if any(part.op in ("add", "mul") or part.args[0] == "abs" for part in operations):
        return False
    return len(operations) <= 1 and not any(part == IMAGINARY for part in walk(answer))
