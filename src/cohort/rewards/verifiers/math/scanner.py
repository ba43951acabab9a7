"""A text that is read from left to right, and the numerals in it: groups of thousands, mixed numbers, bases, times."""

from __future__ import annotations

import re
from fractions import Fraction

from cohort.rewards.verifiers.math.lexicon import BASE_NAMES
from cohort.rewards.verifiers.math.node import Node, Unread

COMMAND = re.compile(r"\\(?:[A-Za-z]+|.)")
LETTERS = re.compile(r"[A-Za-z]+")

_SPACE = re.compile(r"\s*")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
_DECIMALS = re.compile(r"(?:\.[0-9]+)?")
_COMMAS = re.compile(r"[0-9]+(?:,[0-9]+)+")
_THOUSANDS = re.compile(r"(?!0)[0-9]{1,3}(?:,[0-9]{3})+")
_SPACED = re.compile(r"(?!0)[0-9]{1,3}(?:[ ~'][0-9]{3})+(?![0-9])(?:\.[0-9]+)?")
# 2e+1 is 2e + 1, with Euler's number; 2e+01, 2e1 and 1e-5 are powers of ten
_SCIENTIFIC = re.compile(
    r"(?:[0-9]+\.[0-9]+[eE][-+]?[0-9]{1,3}|1[eE]-?[0-9]{1,3}|[0-9]+[eE](?:-?[0-9]{1,3}|\+[0-9]{2,3}))(?=\s*(?:$|[,;)}\]]))"
)
_MIXED = re.compile(
    r"\s*\\frac\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))|\s+([0-9]+)\s*/\s*([0-9]+)"
)
_HALF = r"\s*(?:\\(?:text|mathrm|textrm)\s*\{\s*)?([aApP])\.?\s?[mM]\b\.?\s*\}?"
# 10 R 3, 10 remainder 3
_REMAINDER = re.compile(
    r"([0-9]+)(?:\s*R\s*|\s+r\s+|\s*(?:\\(?:text|mathrm)\s*\{\s*)?(?:R|r|(?i:rem(?:ainder)?)\.?(?: of)?)\s*\}?\s*)"
    r"([0-9]+)\s*$"
)
_TIME = re.compile(rf"([0-9]{{1,2}}):([0-5][0-9])(?::([0-5][0-9]))?(?![0-9:.])(?:{_HALF})?|([0-9]{{1,2}}){_HALF}")
_BASE = re.compile(
    r"\(?((?:[0-9A-F .]|[a-f](?=[0-9a-f]*\)?\s*_\s*\{\s*16)"
    r"|\\(?:text|mathrm|texttt|mathtt|mathbf|textbf)\s*\{\s*[0-9A-Fa-f]+\s*\})+)\)?\s*_\s*"
    rf"(?:([0-9])(?![0-9])|\{{\s*(?:\\text\s*\{{)?\s*([0-9]{{1,2}}|{'|'.join(BASE_NAMES)})\s*\}}?\s*\}})"
)
_SEGMENTS = re.compile(r"(?<![A-Za-z])[A-Z]{2}\s*\\(?:cdot|times)\s*[A-Z]{2}(?![A-Za-z])")


class Scanner:
    """Where reading stands in a text, and what stands there."""

    def __init__(self, text: str, lists: bool) -> None:
        self.text, self.lists = text, lists
        self.at = self.depth = self.bars = self.brackets = self.commas_until = 0
        self.in_builder = False
        self.segments = bool(_SEGMENTS.search(text))  # then AB is one name, that of BA as well, and no product
        self.spaced_lists = bool(re.search(r",\s|;", text))  # then a comma without a space groups digits

    def skip(self) -> None:
        """Go on behind blanks."""
        self.take(_SPACE)

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """What matches here, which is passed."""
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
        return match

    def character(self) -> str:
        """The character that stands here, behind blanks; "" at the end."""
        self.skip()
        return self.text[self.at : self.at + 1]

    def here(self, text: str) -> bool:
        """Whether `text` stands here."""
        self.skip()
        return self.text.startswith(text, self.at)

    def eat(self, text: str) -> bool:
        """Pass `text` if it stands here."""
        found = self.here(text)
        self.at += len(text) * found
        return found

    def need(self, text: str) -> None:
        """Pass `text`, which must stand here."""
        if not self.eat(text):
            raise Unread(f"a {text} is missing")

    def command(self) -> str:
        """The name of the command that stands here, "" if none does."""
        self.skip()
        match = COMMAND.match(self.text, self.at)
        return match[0][1:] if match else ""

    def group(self) -> str:
        """The text in the braces that open here."""
        self.need("{")
        start, depth = self.at, 1
        while depth:
            if self.at >= len(self.text):
                raise Unread("a } is missing")
            depth += {"{": 1, "}": -1}.get(self.text[self.at], 0)
            self.at += 2 if self.text[self.at] == "\\" else 1
        return self.text[start : self.at - 1]

    def argument_text(self) -> str:
        """The text that a command takes: in braces, a command or one character."""
        if self.here("{"):
            return self.group()
        match = self.take(COMMAND)
        self.at += match is None
        return match[0] if match else self.text[self.at - 1 : self.at]

    def numeral(self) -> Node:
        """A number as it is written, 1 1/2 included."""
        if match := self.take(_SCIENTIFIC):
            return Node("num", (Fraction(match[0]), match[0]))
        match = _COMMAS.match(self.text, self.at) if self.at >= self.commas_until else None
        apart = self.lists or (self.brackets and not self.spaced_lists)
        apart = apart and match is not None and ",0" not in match[0]  # nobody lists 1 and 000
        if match is not None and _THOUSANDS.fullmatch(match[0]) and not apart:
            self.at = match.end()
            tail = self.take(_DECIMALS)
            digits = match[0].replace(",", "") + (tail[0] if tail else "")
        else:
            self.commas_until = max(self.commas_until, match.end() if match else 0)
            match = self.take(_SPACED) or self.take(_NUMBER)
            if match is None:
                raise Unread("a point is no number")
            digits = re.sub(r"[ ~']", "", match[0])
        value = Fraction(digits.rstrip("."))
        if "." not in digits and (mixed := _MIXED.match(self.text, self.at)):
            top, bottom = (int(part) for part in mixed.groups() if part)
            if top < bottom:
                self.at = mixed.end()
                return Node("num", (value + Fraction(top, bottom), ""))
        return Node("num", (value, digits))

    def notation(self) -> Node | None:
        """A time of day, a quotient with its remainder, or a numeral of a base."""
        if match := self.take(_REMAINDER):
            whole, rest = (Node("num", (Fraction(digits), digits)) for digits in match.groups())
            return Node("quantities", (whole, Node("unit", (rest, "remainder"))))
        if match := self.take(_TIME):
            hour, minute, second, half, alone, half_alone = match.groups()
            half = (half or half_alone or "").lower()
            hours = int(hour or alone) % (12 if half else 24) + 12 * (half == "p")
            return Node("time", (hours, int(minute or 0), int(second or 0), half))
        match = _BASE.match(self.text, self.at)
        if match is None:
            return None
        digits = re.sub(r"\\[a-z]+|[^0-9A-Za-z.]", "", match[1]).upper().lstrip("0") or "0"
        base = str(BASE_NAMES.get(match[2] or match[3], match[2] or match[3]))
        if not (re.search(r"[0-9\\]", match[1]) or (base == "16" and len(digits) > 1)):
            return None
        self.at = match.end()
        return Node("base", (digits, base))
