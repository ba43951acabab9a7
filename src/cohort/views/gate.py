"""The gate as a table: what each reward pays for gold answers, and for texts that know nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from rich.markup import escape

from cohort.preflight.gate.findings import GOLD, Finding, GateReport, RewardFindings
from cohort.views.console import Console
from cohort.wording import counted, visible

LONGEST_LABEL = 18


def show_gate(console: Console, report: GateReport, verdict: bool = True) -> None:
    """Print the table, the notes and, unless somebody else says it, the verdict."""
    on = counted(report.prompts, "prompt")
    console.say(f"\n  [dim]mean scores on {on}, scored in {report.seconds:.1f} s; a bold reward decides[/]")
    columns: list[tuple[str, RewardFindings | None]] = [(found.name, found) for found in report.rewards]
    if len(columns) > 1:
        columns.append(("together", None))
    headings = [
        f"{'' if found is not None and found.verifier else '[not bold]'}{escape(name)}" for name, found in columns
    ]
    kinds = dict.fromkeys(kind for rows in (report.total, *(f.rows for f in report.rewards)) for kind in rows)
    scores = [  # of each kind of text: what each reward pays for it, and what they all come to together
        [
            f"[bold]{kind}[/]" if kind == GOLD else kind,
            *(_cell(kind, report.total if found is None else found.rows, found) for _, found in columns),
        ]
        for kind in sorted(kinds, key=lambda kind: kind != GOLD)
    ]
    measures = [
        [f"[dim]{name}[/]", *("" if found is None else show(found) for _, found in columns)]
        for name, show in _MEASURES.items()
    ]
    console.table(["", *headings], [*scores, [], *measures], left=len(headings) + 1)
    for line in report.paid_beside():
        console.marked("[dim]paid[/]", line)
    for note in report.notes:
        console.marked("[yellow]note[/]", note)
    for problem in report.problems if verdict else ():
        console.marked("[red]bad[/]", problem)
    if verdict and not report.problems:
        console.marked("[green]good[/]" if report.tested else "[yellow]open[/]", report.sentence())


def _cell(kind: str, rows: Mapping[str, Finding], found: RewardFindings | None) -> str:
    """`0.15 Solution`: the mean score and, where it is not 0, which of the texts got it."""
    row = rows.get(kind)
    if row is None or math.isnan(row.mean):
        return "[dim]-[/]"
    colour = _colour(kind, row, found)
    number = f"[{colour}]{row.mean:.2f}[/]" if colour else f"{row.mean:.2f}"
    label = visible(row.label) if row.mean or kind == GOLD else ""
    short = label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 3] + "..."
    return f"{number} [dim]{escape(short)}[/]" if short else number


def _colour(kind: str, row: Finding, found: RewardFindings | None) -> str:
    """Only what a verifier pays is good or bad."""
    if found is None or not found.verifier or not found.gold_asked:
        return "" if row.mean else "dim"
    if kind == GOLD:
        return "green" if row.mean > found.best_ignorant[1].mean else "red"
    return "red" if row.mean >= found.gold else "" if row.mean else "dim"


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "[dim]-[/]"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"[dim]{seconds / size:.3g} {unit}[/]"
    return f"[dim]{seconds / 1e-6:.3g} µs[/]"


_MEASURES: Mapping[str, Callable[[RewardFindings], str]] = {
    "the same twice": lambda found: "[dim]yes[/]" if found.same_twice else "[yellow]no[/]",
    "a completion": lambda found: _time(found.mean_s),
    "the slowest 5%": lambda found: _time(found.p95_s),
    "first group": lambda found: _time(found.first_s),
}
