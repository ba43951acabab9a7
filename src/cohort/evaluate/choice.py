"""The step that was chosen by held-out problems, and what the others say of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Choice:
    """The step that is kept: its value by `by` among `looks` evaluations, and on problems that had no part in it."""

    step: int
    by: str
    value: float
    looks: int
    confirmed: float | None = None
    low: float | None = None
    high: float | None = None
    before: float | None = None  # of the same problems, before the first step

    def words(self) -> str:
        """`step 80, the best of 4 by eval/greedy (94.0%); 92.8% [...] on the problems that had no part in it`."""
        found = f"step {self.step}, the best of {self.looks} by {self.by} ({self.value:.4g})"
        if self.confirmed is None:
            return f"{found}; no problems were set aside to confirm it"
        form = ".4g" if self.low is None or self.high is None else ".1%"  # what has no interval is no share
        ends = "" if self.low is None or self.high is None else f" [{self.low:{form}}, {self.high:{form}}]"
        sure = f"{self.confirmed:{form}}{ends} on problems that had no part in the choice"
        return f"{found}; {sure}" + (f", {self.before:{form}} before" if self.before is not None else "")

    def as_dict(self) -> dict[str, Any]:
        """For the log of the run."""
        return asdict(self)
