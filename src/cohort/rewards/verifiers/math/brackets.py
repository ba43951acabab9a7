"""What stands in brackets: groups, pairs, intervals, sets and their builders, bars, matrices."""

from __future__ import annotations

from cohort.rewards.verifiers.math.node import INFINITY, Node, Unread, negative
from cohort.rewards.verifiers.math.scanner import Scanner

CLOSING = {name: "\\r" + name[1:] for name in ("lvert", "lVert", "lfloor", "lceil")}


class Brackets(Scanner):
    """Reads a pair of brackets. What stands in it is read by `items` of the class that is built on this one."""

    def items(self) -> Node:
        """Everything up to the end, or up to the closing bracket."""
        raise NotImplementedError

    def inside(self, opening: str, closing: str) -> Node:
        """What stands in a pair of brackets that only group."""
        self.need(opening)
        bars, self.bars = self.bars, 0
        found = self.items()
        self.need(closing)
        self.bars = bars
        return found

    def bracket(self, opening: str) -> Node:
        """( ) and [ ], in any pairing: a group, a tuple, an interval."""
        self.need(opening)
        bars, builder = self.bars, self.in_builder
        self.bars, self.in_builder, self.brackets = 0, False, self.brackets + 1
        inner = self.items()
        closing = self.character()
        if closing not in (")", "]", "[") or (opening == "(" and closing == "["):
            raise Unread("a bracket is not closed")
        self.at += 1
        self.bars, self.in_builder, self.brackets = bars, builder, self.brackets - 1
        items = inner.args if inner.op == "list" else (inner,)
        endless = any(item in (INFINITY, negative(INFINITY)) for item in items)
        if len(items) == 2 and (opening + closing != "()" or endless):
            return Node("interval", (*items, opening == "[", closing == "]"))
        if opening + closing not in ("()", "[]"):
            raise Unread("its brackets do not fit")
        return Node("tuple", items) if len(items) > 1 else inner

    def bar(self, opening: str, closing: str) -> Node:
        """|x|, and what is written like it: a norm, a determinant, a rounding."""
        self.need(opening)
        self.bars += 1
        inner = self.items()
        self.bars -= 1
        self.need(closing)
        if closing in ("|", "\\vert", "\\rvert") and inner.op not in ("matrix", "tuple", "interval"):
            return Node("call", ("abs", inner))
        return Node("open", (opening.strip("\\"), inner))

    def braces(self) -> Node:
        """\\{1, 2\\} and \\{x \\mid x > 2\\}; the opening one has been passed."""
        outside, self.in_builder, self.brackets = self.in_builder, True, self.brackets + 1
        inner = None if self.here("\\}") else self.items()
        condition = None
        if inner is not None and any(map(self.eat, ("|", ":", "\\mid", "\\vert"))):
            self.in_builder = False
            condition = self.items()
        self.need("\\}")
        self.in_builder, self.brackets = outside, self.brackets - 1
        if inner is None:
            return Node("empty", ())
        if condition is not None:
            return Node("builder", (inner, condition))
        return Node("set", inner.args if inner.op == "list" else (inner,))

    def environment(self) -> Node:
        """A matrix, a determinant, cases; \\begin has been passed."""
        name = self.group().strip("* ")
        if name in ("array", "tabular"):
            self.group()
        rows: list[tuple[Node, ...]] = []
        while not self.here("\\end"):
            row = [self.items()]
            while self.eat("&"):
                row.append(self.items())
            rows.append(tuple(row))
            if not self.eat("\\\\"):
                break
        self.need("\\end")
        if self.group().strip("* ") != name:
            raise Unread("an environment is not closed")
        if name in ("cases", "aligned", "align", "gathered", "split"):
            is_system = len(rows) > 1 and all(len(row) == 1 and row[0].op == "rel" for row in rows)
            return Node("and", tuple(row[0] for row in rows)) if is_system else Node("cases", tuple(rows))
        if "matrix" not in name and name != "array":
            raise Unread(f"the environment {name} is not read")
        matrix = Node("matrix", tuple(rows))
        return Node("open", ("det", matrix)) if name[0] in "vV" else matrix
