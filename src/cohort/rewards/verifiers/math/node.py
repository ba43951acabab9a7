"""What an answer is once it is read: a tree of nodes. And what is said of a text that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple


class Unread(ValueError):  # noqa: N818 (what it says is shown to people as it is)
    """Why a text cannot be read as mathematics."""


class Worded(Unread):
    """The same, because words stand in it."""


class Node(NamedTuple):
    """A piece of mathematics: what it is, and its parts (nodes, and plain values for numbers and names)."""

    op: str
    args: tuple[Any, ...]


INFINITY = Node("const", ("inf",))
IMAGINARY = Node("const", ("i",))


def number(value: int) -> Node:
    """A whole number."""
    return Node("num", (Fraction(value), str(value)))


def negative(node: Node) -> Node:
    """What `node` is, with the other sign."""
    return Node("neg", (node,))


def open_interval(node: Node) -> Node:
    """A pair as the interval without its ends: beside a union, and where a set is wanted, (1, 2) is no pair."""
    return Node("interval", (*node.args, False, False)) if node.op == "tuple" and len(node.args) == 2 else node


def changed(node: Any, by: Callable[[Node], Node | None]) -> Any:
    """`node` with what `by` makes of a node below it in its place; None: that stays, and its parts are looked at."""
    if not isinstance(node, tuple):
        return node
    if isinstance(node, Node) and (other := by(node)) is not None:
        return other
    parts = tuple(changed(part, by) for part in (node.args if isinstance(node, Node) else node))
    return Node(node.op, parts) if isinstance(node, Node) else parts


def walk(node: Any) -> Iterator[Node]:
    """`node` and every node below it."""
    if isinstance(node, tuple):
        if isinstance(node, Node):
            yield node
            node = node.args
        for part in node:
            yield from walk(part)


def depth(node: Any) -> int:
    """How many nodes stand in one another."""
    if not isinstance(node, tuple):
        return 0
    return isinstance(node, Node) + max(map(depth, node), default=0)


def symbols(node: Any) -> frozenset[str]:
    """The names of the variables in `node`."""
    return frozenset(str(part.args[0]) for part in walk(node) if part.op == "sym")
