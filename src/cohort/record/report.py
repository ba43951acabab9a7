"""What a verification of a run found: one `Check` for each thing that was looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["holds", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `detail` says what was compared; why it was skipped; or what is different, and
    where: file, row, field, step.
    """

    level: int
    name: str
    status: Status
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """All checks of one run, in the order in which they were made, up to and with the checks of `level`."""

    run: str
    level: int
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing failed. What was skipped says so itself."""
        return all(check.status != "failed" for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """The report for `--json`."""
        return {"run": self.run, "level": self.level, "holds": self.holds, "checks": [asdict(c) for c in self.checks]}
