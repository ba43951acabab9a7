"""What each stage of a run gained, as a table at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from cohort.views.cards.reading import percent, value
from cohort.views.console import Console


def gains_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a record; none where nothing was measured."""
    return list(value(record["run"], "identity.gained") or [])


def show_gains(console: Console, record: Mapping[str, Any]) -> None:
    """The table; nothing for a run of one stage, whose numbers are said already."""
    rows = gains_of(record)
    if len(rows) < 2:
        return
    many = sorted({row["gain"]["problems"] for row in rows if row["gain"] is not None})
    of = f"{' to '.join(f'{count:,}' for count in dict.fromkeys((many[0], many[-1])))} " if many else ""
    console.say(f"\n  what each stage gained on {of}held-out problems, paired, in points with 95% intervals")
    console.table(("stage", "kind", "measure", "before", "after", "gain", ""), [_cells(row) for row in rows], left=3)


def _cells(row: Mapping[str, Any]) -> list[str]:
    gain, why = row["gain"], row["why"] or ""
    points, verdict = "-", "not evaluated" if why == "not_evaluated" else why
    if gain is not None:
        points = f"{100 * gain['mean']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]"
        verdict = gain["verdict"]
    cells = (row["stage"], row["kind"] or "", row["measure"] or "", percent(row["before"]), percent(row["after"]))
    return [*map(escape, cells), escape(points), verdict]
