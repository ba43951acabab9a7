"""A record in the terminal: what was trained and how it went, every fact with its basis, the gaps in one place."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from cohort.account.fields import title_of
from cohort.record.claims import BASES
from cohort.views.cards.reading import (
    Record,
    base_in_words,
    beside,
    facts,
    in_a_line,
    inside,
    measures,
    percent,
    results,
    said,
    value,
)
from cohort.views.console import Console

_LONG = {("identity", "recipe"), ("objective", "loss"), ("behaviour", "performance")}  # said elsewhere, or too long
WORDS = {"measured": "meas", "derived": "der.", "declared": "decl", "imported": "imp."}


def show_record(console: Console, record: Record) -> None:
    """The page."""
    last = record["stages"][-1]
    console.say(f"[bold]{escape(record['name'])}[/]  from {escape(base_in_words(record, len(record['stages']) - 1))}")
    if line := inside(last, "objective.loss", "line"):
        console.say(f"[dim]{escape(line)}[/]")
    performance = value(last, "behaviour.performance")
    if measures(performance):
        console.say()
        console.table(["held out", "before", "after", "difference"], results(performance))
        for more in beside(performance):
            console.say(escape(more))
    for what, part in (("the run", record["run"]), *((f"stage {one['name']}", one) for one in record["stages"])):
        console.say(f"[bold]{escape(what)}[/]")
        lines = {
            title_of(f"{section}.{name}"): f"{said(one['value'])}  ({one['basis']})"
            for section, name, one in facts(part)
            if one["value"] is not None and (section, name) not in _LONG
        }
        console.lines(lines)
        console.say()
    _completeness(console, record)


def _completeness(console: Console, record: Record) -> None:
    done = record["completeness"]
    console.say(f"[bold]{escape(in_a_line(record))}[/]")
    rows = [
        [basis, str(of["stated"]), str(of["fields"]), percent(of["stated"] / of["fields"], 0) if of["fields"] else "-"]
        for basis in BASES
        for of in [done["by_basis"][basis]]
    ]
    console.table(["basis", "stated", "of", ""], rows)
    parts: dict[str, Any] = {"run": record["run"], **{f"stages.{one['name']}": one for one in record["stages"]}}
    console.say("[bold]gaps[/]")
    lines = {}
    for at in done["gaps"]:
        place, section, name = at.rsplit(".", 2)
        stage = f" ({place.removeprefix('stages.')})" if place != "run" and len(record["stages"]) > 1 else ""
        lines[title_of(at) + stage] = parts[place][section][name]["reason"] or "not known"
    console.lines(lines)


def show_difference(console: Console, found: dict[str, Any]) -> None:
    """Two runs: what was chosen otherwise, with its consequence; what else differs; how they ended."""
    a, b = found["a"], found["b"]
    console.say(f"[bold]{escape(a)}[/] and [bold]{escape(b)}[/]")
    for stage in found["stages"]:
        rows = stage["differences"]
        console.say(f"\n[bold]stage {escape(stage['stage'])}[/]{'' if rows else ': the same choices'}")
        console.lines({row["field"]: _row(row) for row in rows})
    for title, rows in (("other settings", found["settings"]), ("what they found", found["facts"])):
        if rows:
            console.say(f"\n[bold]{title}[/]")
            console.lines({row["field"]: _row(row) for row in rows})


def _row(row: dict[str, Any]) -> str:
    text = f"{said(row['here']) or 'not given'} -> {said(row['there']) or 'not given'}"
    return f"{text}. {row['consequence']}" if row.get("consequence") else text
