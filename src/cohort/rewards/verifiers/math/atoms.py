"""The smallest pieces of an answer: names, functions with what they are taken of, words."""

from __future__ import annotations

import re

from cohort.rewards.verifiers.math.brackets import CLOSING, Brackets
from cohort.rewards.verifiers.math.lexicon import (
    CONSTANTS,
    FUNCTIONS,
    NO_FACTORS,
    OPERATORS,
    RELATIONS,
    SET_NAMES,
    TEXTUAL,
    WRAPPERS,
    read_text,
)  # fmt: skip
from cohort.rewards.verifiers.math.node import Node, Unread, Worded, negative, number
from cohort.rewards.verifiers.math.scanner import COMMAND, LETTERS
from cohort.rewards.verifiers.words import UNIT_LETTERS, UNITS, in_alphabetical_order, is_unit_word

ENDS = frozenset(",;)]}|&")
_DIFFERENTIAL = r"\{\s*(?:d|\\partial|\\mathrm\s*\{d\})"
_DERIVATIVE = re.compile(
    rf"\\frac\s*{_DIFFERENTIAL}(?![a-z]{{2}})[^{{}}]{{0,12}}\}}\s*{_DIFFERENTIAL}\s*[^{{}}]{{1,12}}\}}"
)
_SUBSCRIPT = re.compile(r"\s*_\s*")
_PRIMES = re.compile(r"('+)|\^\s*\{?\s*((?:\\prime\s*)+)\}?")
_APPLIED = re.compile(r"\s*(\^\s*\{\s*-1\s*\}\s*)?(?=\()")
_TEXT_SYMBOL = re.compile(r"\\[A-Za-z]+\s*\{\s*([^{}]*?)\s*\}\s*(_)?")
_MARK_OF_SET = re.compile(r"\s*\^\s*\{?\s*([+*\-]|[0-9])\s*\}?|\s*_\s*\{?\s*[^{}\s]{1,4}\s*\}?")
_PLAIN_NAMES = frozenset(("ldots", "dots", "cdots", "vdots", "star", "square", "nabla", "partial", "ell", "hbar"))


class Atoms(Brackets):
    """Reads one operand. What follows it is read by the class that is built on this one."""

    def power(self) -> Node:
        """An operand with what is raised over it or follows it."""
        raise NotImplementedError

    def is_last(self) -> bool:
        """Whether nothing that belongs to an operand follows."""
        raise NotImplementedError

    def starts_factor(self) -> bool:
        """Whether what stands here is multiplied, without a sign, with what stands before it."""
        character = self.character()
        if not character or (character in ENDS and character != "|") or character in "=<>+-:^_!%'[":
            return False
        if character == "|":
            return not (self.bars or self.in_builder)
        if character == "\\":
            name = self.command()
            if name in TEXTUAL:
                match = _TEXT_SYMBOL.match(self.text, self.at)
                return match is not None and (bool(match[2]) or _is_symbol(match[1]))
            if name in ("|", "vert", "Vert"):
                return not self.bars
            return name == "{" or not (name in NO_FACTORS or any(spelling == "\\" + name for spelling, _ in RELATIONS))
        match = LETTERS.match(self.text, self.at)
        if match is None:
            return character in "({." or character.isdigit()
        if match[0] in FUNCTIONS:
            return True
        return match[0] not in ("and", "or", "mod") and not is_unit_word(match[0], self.text[self.at - 1].isspace())

    def primary(self) -> Node:
        """One operand without what follows it."""
        character = self.character()
        if character.isdigit() or character == ".":
            return self.numeral()
        if LETTERS.match(character):
            return self.letters()
        if character == "\\":
            return self.known_command()
        if character == "{":
            inner = self.inside("{", "}")
            return Node("set", inner.args) if inner.op == "list" else inner
        if character and character in "([]":
            return self.bracket(character)
        if character == "|":
            return self.bar("|", "|")
        if character and character in "+-":
            self.at += 1
            return negative(self.power()) if character == "-" else self.power()
        raise Unread(f"{character!r} has no place in it" if character else "something is missing at its end")

    def argument(self) -> Node:
        """What ^ or a command takes: a group, a command with what it takes, a sign and a digit, or one character."""
        if self.eat("-"):
            return negative(self.argument())
        character = self.character()
        if character.isdigit():
            self.at += 1
            return number(int(character))
        if LETTERS.match(character):
            self.at += 1
            return _symbol(character)
        return self.primary()

    def read_apart(self, text: str) -> Node:
        """What stands in a wrapper such as \\mathbf{...}, read on its own."""
        reader = type(self)(text, self.lists)
        reader.depth = self.depth + 1
        found = reader.items()
        if reader.character():
            raise Unread(f"{text[reader.at :][:20]!r} has no place in it")
        return found

    def letters(self) -> Node:
        """A function's name without a backslash, or a letter, or capitals that name one thing: ABC is no product."""
        match = LETTERS.match(self.text, self.at)
        run = match[0] if match else ""
        name = "sqrt" if run.startswith("sqrt") else run
        if name in FUNCTIONS:
            self.at += len(name)
            return self.function(name)
        if run in ("pi", "infinity", "inf"):
            self.at += len(run)
            return Node("const", (run[:3].rstrip("f") + "f" if run != "pi" else "pi",))
        if len(run) > 3 and not in_alphabetical_order(run) and is_unit_word(run, True) and not run.isupper():
            raise Worded(f"the word {run!r} stands in it")
        if len(run) == 2 and self.segments and run.isupper():
            self.at += 2
            return self.name("".join(sorted(run)))
        width = len(run) if len(run) > 2 and run.isupper() else 1
        self.at += width
        return self.name(run[:width])

    def name(self, name: str) -> Node:
        """A symbol with its subscript and primes; a function of what follows in brackets if it is called f, g or h."""
        while True:
            if self.take(_SUBSCRIPT):
                below = re.sub(r"\\(?:text|mathrm|textrm)\s*\{([^{}]*)\}", r"\1", self.argument_text())
                name += "_" + re.sub(r"[\s{}]", "", below)
            elif match := self.take(_PRIMES):
                name += match[1] or "'" * match[2].count("\\prime")
            else:
                break
        if name[0] in "fghFGH" and (match := self.take(_APPLIED)):
            inner = self.bracket("(")
            return Node("call", (name + "^-1" * bool(match[1]), *(inner.args if inner.op == "tuple" else (inner,))))
        return _symbol(name)

    def known_command(self) -> Node:
        """A command, with what it takes. One that is not known is a symbol."""
        if match := self.take(_DERIVATIVE):
            return Node("open", (re.sub(r"\s", "", match[0]),))
        name = self.command()
        self.take(COMMAND)
        if name in TEXTUAL:
            return self.words(name)
        if name in WRAPPERS:
            text = self.argument_text().strip()
            if WRAPPERS[name]:
                return self.name(f"{name}{{{re.sub(r'[ {}]', '', text)}}}")
            return self.name(f"bold{text}") if text and text in "ijek" else self.read_apart(text)
        if name in ("frac", "cfrac"):
            top = self.argument()
            return Node("div", (top, self.argument()))
        if name in ("binom", "dbinom", "tbinom"):
            top = self.argument()
            return Node("call", ("binom", top, self.argument()))
        if name in FUNCTIONS:
            return self.function(name)
        if name in OPERATORS:
            return self.operator(name)
        if name in SET_NAMES:
            return SET_NAMES[name]
        if name in ("mathbb", "mathds", "Bbb"):
            letter = self.argument_text().strip()
            mark = self.take(_MARK_OF_SET)
            return Node("numset", (letter + re.sub(r"[\s{}]", "", mark[0] if mark else ""),))
        if name == "begin":
            return self.environment()
        if name == "{":
            return self.braces()
        if name in CLOSING or name in ("vert", "Vert", "|"):
            self.at -= len(name) + 1
            return self.bar("\\" + name, CLOSING.get(name, "\\" + name))
        if name in ("triangle", "angle"):
            return Node("call", (name, self.power()))
        if name in _PLAIN_NAMES:
            return self.name("\\" + name)
        if name in NO_FACTORS or not name.isalpha() or any(spelling == "\\" + name for spelling, _ in RELATIONS):
            raise Unread(f"\\{name} has no place where it stands")
        return CONSTANTS[name] if name in CONSTANTS else self.name("\\" + name)

    def words(self, command: str) -> Node:
        """\\text{...} where an operand is expected: a letter, a function, a number, or words as the whole answer."""
        inner = self.group().replace("~", " ").strip()
        if inner in FUNCTIONS:
            return self.function(inner)
        if inner in OPERATORS:
            return self.operator(inner)
        if inner.isalpha() and (len(inner) == 1 or command == "operatorname" or self.here("_")):
            return self.name(inner)
        letters_apart = r"[^A-Za-z]+|\(?[A-Za-z]\)?(?:(?:[,;] ?| and | or )\(?[A-Za-z]\)?)*"
        wrapped = command.startswith("math") and not re.search(r"[A-Za-z]{2}", inner)
        wrapped = wrapped or (command == "mathrm" and len(inner) == 2)
        if inner[:1].isdigit() or re.fullmatch(letters_apart, inner) or wrapped:
            return self.read_apart(inner)
        found = read_text(f"\\text{{{inner}}}")
        if found is None:
            raise Worded(f"the words {inner!r} stand in it")
        if found.op == "text" and not self.is_last():
            raise Worded(f"the words {inner!r} stand before the mathematics")
        return found

    def function(self, name: str) -> Node:
        """A function that is known with what it is taken of: \\sin^2 2x, \\log_2 8, \\sqrt[3]{2}, \\ln(x+1)."""
        name = FUNCTIONS[name]
        if name == "sqrt":
            index = self.inside("[", "]") if self.here("[") else number(2)
            return Node("call", ("root", self.argument(), index))
        base = power = None
        while self.here("_") or self.here("^"):
            if self.eat("_"):
                base = self.argument()
            elif self.eat("^"):
                power = self.argument()
        if power == negative(number(1)):
            name, power = (f"arc{name}" if name in ("sin", "cos", "tan") else f"{name}^-1"), None
        if self.character() and self.character() in "([{":
            inner = self.primary()
            parts = inner.args if inner.op == "tuple" else (inner,)
        else:
            factors = [self.power()]
            while self.character() != "(" and self.next_name() not in FUNCTIONS and self.starts_factor():
                factors.append(self.power())
            parts = (factors[0] if len(factors) == 1 else Node("mul", tuple(factors)),)
        call = Node("call", (name, *parts) if base is None else (name + "_base", *parts, base))
        return call if power is None else Node("pow", (call, power))

    def next_name(self) -> str:
        """The command or the letters that stand here."""
        match = LETTERS.match(self.text, self.at)
        return self.command() or (match[0] if match else "")

    def operator(self, name: str) -> Node:
        """A sum, an integral, a limit, gcd ...: work to be done. Its limits are part of what it is."""
        limits = []
        while self.here("_") or self.here("^"):
            sign = self.text[self.at]
            self.at += 1
            limits.append(sign + re.sub(r"[\s{}]", "", self.argument_text()))
        if name in ("pmod", "bmod", "mod"):
            return Node("open", ("\\mod", self.power()))
        key = "\\" + name + "".join(sorted(limits))
        if OPERATORS[name] and (self.here("(") or self.here("\\{") or self.here("{")):
            inner = self.primary()
            return Node("open", (key, *(inner.args if inner.op in ("tuple", "set") else (inner,))))
        return Node("open", (key,))


def _symbol(name: str) -> Node:
    return CONSTANTS[name] if name in CONSTANTS else Node("sym", (name,))


def _is_symbol(text: str) -> bool:
    """Whether \\text{...} behind a value is a symbol (i, x, \\pi) or a function rather than words or a unit."""
    if "\\" in text or text in FUNCTIONS:
        return True
    return text.isalpha() and len(text) < 3 and text not in UNIT_LETTERS | UNITS and text not in ("or", "am", "pm")
