"""Units behind an expression: `2\\sqrt{3}\\text{ cm}^2` is 2\\sqrt{3}, but `2ab` is not 2."""

from __future__ import annotations

import re

from cohort.rewards.verifiers.number import CHANGES_THE_VALUE

__all__ = ["is_product", "without_unit"]

_TEXT = r"\\(?:text|textbf|textit|textrm|mathrm|mbox)\s*\{(?:[^{}0-9]|(?<=[A-Za-z^])[23])*\}"
_POWER = r"(?:\s*\^\s*\{?-?[0-9]\}?)?"
_NAMES = (
    "mm|cm|km|kg|ft|lb|yr|hr|mph|inch|feet|foot|yard|mile|meter|metre|liter|litre|gram|pound|second|minute|hour|day|week"
    "|month|year|degree|radian|unit|cent|dollar"
)
_UNIT = re.compile(
    rf"(?<=[\w)}}!%])\s*(?:{_TEXT}{_POWER}\s*/?\s*)+$"
    rf"|(?<=[\d)}}\s])(?:(?:square|cubic|sq\.?)\s)?\s*(?:{_NAMES})(?:s|es)?{_POWER}$"
)


def is_product(text: str) -> bool:
    """Whether letters behind a number are factors: those of `3t` and `2ab`, but not of `3 t`, `3cm` and `3 apples`."""
    found = re.fullmatch(r"[^A-Za-z]*[0-9]([A-Za-z]{1,2})", text)
    return found is not None and re.fullmatch(_NAMES, found[1]) is None


def without_unit(text: str) -> str:
    """LaTeX without the unit at its end: any words in \\text{}, or a common name such as `cm`, with a power or without.

    Words that change the value ("million"), and a text that is nothing else, stay.
    """
    found = _UNIT.search(text)
    if found is None or not CHANGES_THE_VALUE.isdisjoint(re.findall(r"[a-z]{2,}", found[0].lower())):
        return text
    rest = text[: found.start()].strip()
    return rest if re.sub(_TEXT, "", rest).strip() else text
