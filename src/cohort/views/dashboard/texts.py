"""Text of a run on a page: shown as what it is, whatever it holds, and the differences between two texts."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from markupsafe import Markup, escape

from cohort.wording import visible

LONGEST = 20_000  # characters of one text on a page
PIECES = 3_000  # words of one text that are compared
_WORD = re.compile(r"\s+|\w+|[^\w\s]")
_UNSHOWN = re.compile("[^\n\t\u0020-\u007e\u00a1-\u00ac\u00ae-\u04ff]")  # what may have no shape: looked at one by one
_CODE = re.compile("`([^`<>]+)`")


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a text: `same` as in the other one, or `own`."""

    text: str
    kind: Literal["same", "own"]


def shown(text: object, longest: int = LONGEST) -> Markup:
    """Text as HTML: escaped, control characters and marks of direction as marks that a reader sees, cut where it is
    very long.
    """
    if text is None:
        return Markup('<span class="erased">(erased)</span>')
    said = str(text)
    more = len(said) - longest
    said = said[:longest] if more > 0 else said
    parts, done = [], 0
    for found in _UNSHOWN.finditer(said):
        character = found[0]
        if (mark := visible(character)) != character:
            name = unicodedata.name(character, "control character").lower()
            shape = Markup('<span class="ctl" title="{}">{}</span>').format(name, mark)
            parts += [escape(said[done : found.start()]), shape]
            done = found.end()
    parts.append(escape(said[done:]))
    if more > 0:
        parts.append(Markup('<span class="cut"> … {} more characters</span>').format(f"{more:,}"))
    return Markup("").join(parts)


def coded(text: object, longest: int = LONGEST) -> Markup:
    """A sentence of the project's own, with what a run says in it: as `shown`, and between backticks as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(shown(text, longest))))


def differences(text: str, other: str) -> tuple[Part, ...]:
    """`text` in parts, those marked that `other` has not, word by word. Of long texts the lines are compared."""
    a, b = _WORD.findall(text), _WORD.findall(other)
    if max(len(a), len(b)) > PIECES:
        a, b = text.splitlines(keepends=True), other.splitlines(keepends=True)
    if max(len(a), len(b)) > PIECES:
        return (Part(text, "same" if text == other else "own"),)
    found: list[Part] = []
    for what, low, high, _, _ in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if high > low:
            found.append(Part("".join(a[low:high]), "same" if what == "equal" else "own"))
    return tuple(found)


def in_a_line(text: str | None, longest: int = 120) -> str:
    """A text on one line, cut, with what a reader cannot see made visible."""
    line = visible(" ".join((text or "").split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"
