"""Reads an answer in LaTeX: what kind of thing it is first, and then its parts, as a tree of `Node`s.

A recursive descent over the text, from the loosest binding to the tightest: items of a list, relations, unions of
sets, units, sums, products, powers. Nothing is computed and nothing is guessed: a command that is not known is a symbol
of its own, and what has no place raises `Unread`, which says what was met.
"""

from __future__ import annotations

import re
from fractions import Fraction

from cohort.rewards.verifiers.math.atoms import ENDS, Atoms
from cohort.rewards.verifiers.math.lexicon import FUNCTIONS, NO_FACTORS, RELATIONS, TEXTUAL, read_text
from cohort.rewards.verifiers.math.node import Node, Unread, Worded, depth, number, open_interval
from cohort.rewards.verifiers.math.scanner import COMMAND
from cohort.rewards.verifiers.words import SCALES, is_unit_word

_DEEPEST = 40  # brackets
_DEEPEST_TREE = 100  # nodes: a^b^c^d ... has no bracket
_ALL_BUT = re.compile(
    r"(?:\\text\s*\{\s*)?[Aa]ll real(?:s| numbers)?(?: [a-z])? except(?: for)?\s*\}?\s*((?!\s).+?)\s*\}?"
)
_SEPARATOR = re.compile(
    r"\s*(?:[,;]\s*(?:\\text\s*\{\s*)?(?:\b(and|or)\b)?\s*\}?|(?:\\text\s*\{\s*)?\b(and|or)\b\s*\}?"
    r"|\\(land|lor|vee|wedge)(?![A-Za-z]))\s*"
)
_LOGIC = {"land": "and", "wedge": "and", "lor": "or", "vee": "or"}
_SETS = {"cup": "setor", "bigcup": "setor", "cap": "setand", "setminus": "setminus", "backslash": "setminus"}
_TIMES = ("cdot", "times", "ast", "div", "bullet", "*", "/")
_SIGNS = (("+", ""), ("-", "neg"), ("\\pm", "pm"), ("\\mp", "mp"))
_UNIT_WORD = re.compile(r"[^\W\d_]+")
_FEET = re.compile(r"''?|\"")
_UNIT_POWER = re.compile(r"\s*\^\s*\{?\s*(-?[0-9])\s*\}?")
_UNIT_SIGN = re.compile(r"(/)|\\cdot(?![A-Za-z])|\.(?=\s|$)")
_DEGREE = re.compile(r"\{?\s*(?:\\circ|\\degree)\s*\}?")
_SCALE = re.compile(r"\s*(?:\\(?:text|mathrm)\s*\{\s*)?[CF]\b\s*\}?")
_MINUTES = re.compile(
    r"\s*([0-9]+)\s*(?:'|\^\s*\{?\\prime\}?)(?:\s*([0-9]+)\s*(?:''|\"|\^\s*\{?\\prime\s*\\prime\}?))?"
)
_ORDINAL = re.compile(r"\{?\s*\\(?:text|mathrm)\s*\{\s*(?:st|nd|rd|th)\s*\}\s*\}?")
_MARK = re.compile(
    r"\{\s*(\\prime(?:\s*\\prime)*|[-*+cT]|\\dagger|\\perp|\\top|\\complement)\s*\}|(\\prime|\*|\\dagger|\\top|\\complement)"
)


def read(text: str, lists: bool = False) -> Node:
    """The answer that `text` (cleaned LaTeX) states. Where commas may group digits or part them, `lists` parts them."""
    if match := _ALL_BUT.fullmatch(text):
        left_out = read(match[1], lists)
        points = left_out.args if left_out.op == "list" else (left_out,)
        return Node("setminus", (Node("numset", ("R",)), Node("set", points)))
    words = read_text(text)
    if words is not None:
        return words
    reader = _Reader(text, lists)
    try:
        found = reader.items()
        is_deep = depth(found) > _DEEPEST_TREE
    except RecursionError:
        is_deep = True
    if is_deep:
        raise Unread("its parts are too deep in one another")
    if reader.character():
        raise Unread(f"{text[reader.at :][:20]!r} has no place in it")
    return found


class _Reader(Atoms):
    def items(self) -> Node:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise Unread("its brackets are too deep")
        found, joined = [self.statement()], []
        while (match := _SEPARATOR.match(self.text, self.at)) and match[0].strip():
            self.at = match.end()
            joined.append(next((word for word in match.groups() if word), ","))
            if self.character() in ENDS or not self.character():
                break
            found.append(self.statement())
        self.depth -= 1
        if len(found) == 1:
            return found[0]
        words = {_LOGIC.get(word, word) for word in joined}
        if any(item.op == "rel" for item in found):
            return Node("or" if "or" in words else "and" if "and" in words else "list", tuple(found))
        if set(joined) <= set(_LOGIC) and len(words) == 1:
            return Node(f"logic {words.pop()}", tuple(found))
        return Node("list", tuple(found))

    def statement(self) -> Node:
        """A relation, a chain of them, or what has none."""
        if self.relation() not in (None, "=", "≈"):
            raise Unread("a relation has nothing on its left")
        parts, ops = [self.sets()], []
        while (op := self.relation()) is not None:
            ops.append(op)
            parts.append(self.sets())
        return Node("rel", (tuple(ops), *parts)) if ops else parts[0]

    def relation(self) -> str | None:
        self.skip()
        for spelling, op in RELATIONS:
            if self.text.startswith(spelling, self.at) and not (self.in_builder and op == "divides"):
                end = self.at + len(spelling)
                if not (spelling[-1].isalpha() and self.text[end : end + 1].isalpha()):
                    self.at = end
                    return op
        return None

    def sets(self) -> Node:
        """Unions and the like, and ratios."""
        left = self.quantity()
        while self.command() in _SETS:
            op = _SETS[self.command()]
            self.take(COMMAND)
            left = Node(op, (open_interval(left), open_interval(self.quantity())))
        if self.in_builder or not self.here(":"):
            return left
        parts = [left]
        while self.eat(":"):
            parts.append(self.quantity())
        return Node("ratio", tuple(parts))

    def quantity(self) -> Node:
        """A sum with its unit; several with theirs (5 ft 6 in) are one quantity."""
        self.skip()
        if (found := self.notation()) is not None:
            return found
        value = self.sum()
        parts: list[Node] = []
        while words := self.unit():
            parts.append(_scaled(value, words))
            if not self.character().isdigit() and self.command() != "frac":
                break
            value = self.sum()
        else:
            if parts:
                raise Worded("words stand in the middle of it")
            return value
        if self.character() and not self.is_last() and self.command() not in NO_FACTORS:
            raise Worded("words stand in the middle of it")
        return parts[0] if len(parts) == 1 else Node("quantities", tuple(parts))

    def unit(self) -> str:
        """Words behind a value, with their powers: " cm^2", " apples", " km / h"; "" if there are none."""
        words = ""
        while True:
            self.skip()
            start = self.at
            if words and (match := self.take(_UNIT_POWER)):
                words += f" {match[1]}"
            elif self.command() in TEXTUAL:
                self.take(COMMAND)
                text = self.group()
                inner = re.sub(r"\\[A-Za-z]+|[{}^~\\]", " ", text).strip()
                if inner in ("and", "or"):
                    self.at = start
                    break
                if re.search(r"[0-9]{2}|[01456789]", re.sub(r"\^\s*\{?\s*-?[0-9]", "", text)):
                    raise Worded(f"the words {inner!r} stand in the middle of it")
                words += f" {inner}"
            elif words and (match := self.take(_UNIT_SIGN)):
                words += match[1] or " "
            elif match := self.take(_UNIT_WORD):
                spaced = bool(words) or self.text[start - 1 : start].isspace()
                known = is_unit_word(match[0], spaced) or (words.endswith("/") and len(match[0]) < 3)
                if match[0] in ("and", "or") or match[0] in FUNCTIONS or not known:
                    self.at = start
                    break
                words += f" {match[0]}"
            elif not words and (match := self.take(_FEET)):
                words = match[0]
            else:
                break
        return words.strip()

    def sum(self) -> Node:
        parts: list[Node] = []
        while True:
            self.skip()
            sign = next((pair for pair in _SIGNS if self.text.startswith(pair[0], self.at)), None)
            if sign is None and parts:
                return parts[0] if len(parts) == 1 else Node("add", tuple(parts))
            self.at += len(sign[0]) if sign else 0
            term = self.product()
            parts.append(Node(sign[1], (term,)) if sign and sign[1] else term)

    def product(self) -> Node:
        value = self.power()
        while True:
            self.skip()
            name = self.command()
            sign = name if name in _TIMES else self.text[self.at : self.at + 1]
            if sign in _TIMES:
                self.at += len(name) + 1 if sign == name else 1
                factor = self.power()
                if sign == "div":  # work to be done, as a product is; 3/4 is a number
                    factor = Node("div", (number(1), factor))
                value = Node("div", (value, factor)) if sign == "/" else Node("mul", (*_factors(value), factor))
            elif self.starts_factor():
                factors = (*_factors(value), self.power())
                if factors[-1].op == factors[-2].op == "num":
                    raise Unread("two numbers stand side by side")
                value = Node("mul", factors)
            else:
                return value

    def power(self) -> Node:
        base = self.primary()
        while True:
            character = self.character()
            if self.eat("^"):
                base = self.raised(base)
            elif character == "!" and not (self.here("!=") and base.op == "sym"):
                self.at += 1
                if self.text[self.at : self.at + 1] == "!":
                    raise Unread("a double factorial is not read")
                base = Node("call", ("fact", base))
            elif self.eat("%") or self.eat("\\%"):
                base = Node("percent", (base,))
            elif self.command() in ("degree", "circ"):
                self.take(COMMAND)
                base = self.degrees(base)
            elif character == "_":
                raise Unread("a subscript has nothing to belong to")
            else:
                return base

    def raised(self, base: Node) -> Node:
        """What stands behind ^: degrees, marks that belong to a name, an exponent."""
        self.skip()
        if self.take(_DEGREE):
            return self.degrees(base)
        if self.take(_ORDINAL):
            return base
        mark = self.take(_MARK)
        if mark is None:
            return Node("pow", (base, self.argument()))
        sign = re.sub(r"\s", "", mark[1] or mark[2]).replace("\\prime", "'")
        if base.op in ("sym", "const", "call") and sign not in ("c", "T", "\\top", "\\complement"):
            return Node("call" if base.op == "call" else "sym", (str(base.args[0]) + sign, *base.args[1:]))
        return Node("pow", (base, Node("sym", (sign,))))

    def degrees(self, base: Node) -> Node:
        """An angle, with its minutes and seconds, or a temperature."""
        self.take(_SCALE)
        if base.op == "num" and (match := self.take(_MINUTES)):
            part = Fraction(int(match[1]), 60) + Fraction(int(match[2] or 0), 3600)
            base = Node("num", (base.args[0] + part, ""))
        return Node("degree", (base,))

    def is_last(self) -> bool:
        if not self.character() or self.character() in ENDS or _SEPARATOR.match(self.text, self.at):
            return True
        at, found = self.at, self.relation()
        self.at = at
        return found is not None


def _scaled(value: Node, words: str) -> Node:
    """A value with its unit; 3.5 million is a number."""
    first, _, rest = words.partition(" ")
    if value.op != "num" or first.casefold() not in SCALES or first.isupper():
        return Node("unit", (value, words))
    value = Node("num", (value.args[0] * SCALES[first.casefold()], ""))
    return Node("unit", (value, rest)) if rest else value


def _factors(value: Node) -> tuple[Node, ...]:
    return value.args if value.op == "mul" else (value,)
