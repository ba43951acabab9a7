"""What each stage of a run gained, as a table at its end."""

from __future__ import annotations

from rich.markup import escape

from cohort.views.cards.reading import GAINS, Record, gain_cells, gains_of
from cohort.views.console import Console


def show_gains(console: Console, record: Record) -> None:
    """The table; nothing for a run of one stage, whose numbers are said already."""
    rows = gains_of(record)
    if len(rows) < 2:
        return
    many = sorted({row["gain"]["problems"] for row in rows if row["gain"] is not None})
    of = f"{' to '.join(f'{count:,}' for count in dict.fromkeys((many[0], many[-1])))} " if many else ""
    console.say(f"\n  what each stage gained on {of}held-out problems, paired, in points with 95% intervals")
    console.table(GAINS, [[escape(cell) for cell in gain_cells(row)] for row in rows], left=3)
