"""What an answer is once it is read: a tree of nodes. And what is said of a text that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
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
