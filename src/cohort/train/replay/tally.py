"""What was compared under one name, and where it differs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from cohort.record.report import Check
from cohort.wording import shorten, visible

SHOWN = 3  # differences that a check names; it counts the others


def equal(one: Any, other: Any) -> bool:
    """Whether two values are the same to the last bit; NaN is the same as NaN, and None stands for it on disk."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other) or (_is_nothing(one) and _is_nothing(other))


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


@dataclass(slots=True)
class Tally:
    """Comparisons that become one `Check`."""

    level: int
    name: str
    what: str  # what was compared: "scores, recomputed from the text"
    how: str = "all equal"
    compared: int = 0
    differences: list[str] = field(default_factory=list)
    skipped: str = ""  # why nothing could be compared

    def compare(self, where: str, stored: Any, now: Any) -> None:
        """Count a value, and note it where what is stored is not what it comes to now."""
        self.compared += 1
        if not equal(stored, now):
            self.differ(f"{where} is {_said(stored)}, and comes to {_said(now)}")

    def differ(self, what: str) -> None:
        """Note what is different."""
        self.differences.append(visible(what))

    def check(self, shown: int = SHOWN) -> Check:
        """The check that these comparisons come to; it names at most `shown` differences."""
        if self.differences:
            more = len(self.differences) - shown
            listed = "; ".join(self.differences[:shown]) + (f"; and {more} more" if more > 0 else "")
            return Check(self.level, self.name, "failed", listed)
        if self.skipped or not self.compared:
            return Check(self.level, self.name, "skipped", self.skipped or f"{self.what}: there are none")
        return Check(self.level, self.name, "holds", f"{self.what}: {self.compared}, {self.how}")


def _said(value: Any) -> str:
    return repr(value) if isinstance(value, float) else shorten(value)
