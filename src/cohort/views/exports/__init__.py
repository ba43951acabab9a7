"""What other tools read of a record: one file a projection, one line each in the table. Each is a function of a
`Bundle` that returns JSON, or text; where a library or a schema can say whether it is valid, it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class File:
    """A file of rollouts beside the projections."""

    path: str
    sha256: str
    size: int
    columns: Mapping[str, str]  # name -> type, as Arrow calls it


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a projection is made from."""

    record: Mapping[str, Any]
    rollouts: tuple[File, ...]

    @property
    def last(self) -> Mapping[str, Any]:
        """The last stage."""
        found: Mapping[str, Any] = self.record["stages"][-1]
        return found


@dataclass(frozen=True, slots=True)
class Export:
    """Where a projection is made, and where it is checked: a function that returns what is wrong, or None."""

    make: str
    check: str | None = None
    of_record: bool = False  # made from the record alone


_HERE = "cohort.views.exports"
EXPORTS = {
    "record.json": Export("builtins:dict", f"{_HERE}.checks:record", of_record=True),  # as it is
    "card.md": Export("cohort.views.cards.card:card", f"{_HERE}.checks:front_matter", of_record=True),
    "card.html": Export("cohort.views.cards.page:page", of_record=True),
    "bom.cdx.json": Export(f"{_HERE}.cyclonedx:bom", f"{_HERE}.checks:cyclonedx"),
    "provenance.intoto.json": Export(f"{_HERE}.intoto:provenance", f"{_HERE}.checks:statement"),
    "training.intoto.json": Export(f"{_HERE}.intoto:training", f"{_HERE}.checks:training"),
    "croissant.json": Export(f"{_HERE}.croissant:dataset", f"{_HERE}.checks:croissant"),
    "crosswalk.md": Export(f"{_HERE}.crosswalk:crosswalk"),
}
