"""card.html: one page that needs nothing else: no script, no address, its plots drawn inside. All text is escaped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from markupsafe import Markup

from cohort.monitor.names import metric
from cohort.views.cards.plots import curve, intervals, shares
from cohort.views.cards.reading import (
    DIFFERENCES,
    MEASURES,
    Record,
    amount,
    difference,
    facts,
    inside,
    measures,
    percent,
    seconds,
    value,
)
from cohort.views.cards.rendering import rendered

_CURVES: dict[str, tuple[str, Callable[[float], str], bool]] = {  # name -> title, how it is written, whether from 0
    "reward/mean": ("Reward", "{:.3g}".format, False),
    "groups/signal": ("Groups with signal", "{:.0%}".format, True),
    "completions/mean_tokens": ("Length", "{:.3g}".format, True),
    "policy/entropy": ("Entropy", "{:.3g}".format, True),
    "policy/kl": ("KL to the reference", "{:.3g}".format, True),
    "loss": ("Loss", "{:.3g}".format, True),
}


def page(record: Record) -> str:
    """The page of a run: its last stage in full, and every fact of all of them."""
    stage = record["stages"][-1]
    parts = [("the run", record["run"]), *((f"stage {one['name']}", one) for one in record["stages"])]
    return rendered(
        "page.html",
        record,
        len(record["stages"]) - 1,
        style=Markup(Path(__file__).with_name("page.css").read_text("utf-8")),
        tiles=list(_tiles(stage)),
        plots=list(_plots(stage)),
        shares=lambda parts: Markup(shares(parts)),
        parts=[(what, [one for one in facts(part) if one[:2] != ("identity", "recipe")]) for what, part in parts],
    )


def _tiles(stage: Record) -> Iterator[tuple[str, str, str]]:
    """Numbers to see first, each with what it is and something more."""
    performance = value(stage, "behaviour.performance")
    for name in measures(performance):
        before, after = (performance.get(when, {}).get(name) for when in ("before", "after"))
        sure = performance.get("difference", {}).get(DIFFERENCES.get(name, ""), {})
        way = "up" if sure.get("low", 0) > 0 else "down" if sure.get("high", 0) < 0 else ""  # else it may be chance
        arrow = f"{percent(before)} &rarr; " if before is not None else ""
        low, high = (performance["after"].get(f"{name}_{end}") for end in ("low", "high"))
        change = difference(performance, name)
        more = f"change {change}" if change != "-" else f"95%: {percent(low)} to {percent(high)}"
        number = Markup(f'{arrow}<em class="{way}" style="font-style:normal">{percent(after)}</em>')
        yield number, f"held-out accuracy, {MEASURES[name]}", more
    budget, tally = value(stage, "compute.budget") or {}, value(stage, "data.rejected") or {}
    if budget:
        yield amount(int(budget["steps"])), "training steps", f"in {seconds(budget.get('seconds'))}"
    if rollouts := sum(tally.get("rollouts", {}).values()):
        yield amount(rollouts), "completions", f"{amount(budget.get('tokens_sampled'))} tokens, all kept"
    if flops := inside(stage, "compute.operations", "total"):
        share = f"{amount(inside(stage, 'policies.trained', 'parameters'))} parameters"
        yield amount(flops), "floating-point operations", share


def _plots(stage: Record) -> Iterator[tuple[str, str, Markup]]:
    """Curves over the steps, each with its title and what it is."""
    series = stage.get("series", {})
    steps, evaluations = series.get("steps", []), series.get("evaluations", [])
    names = {name: label for name, label in MEASURES.items() if any(name in one for one in evaluations)}
    if len(evaluations) > 1 and (drawn := intervals(evaluations, names, "{:.0%}".format)):
        keys = "".join(f'<i class="key s{n}"></i>{label}' for n, label in enumerate(names.values()))
        yield "Held-out accuracy", Markup(f"95% intervals{keys}"), Markup(drawn)
    for name, (title, form, floor) in _CURVES.items():
        if name in series and (drawn := curve(title, steps, series[name], form, floor)):
            known = metric(name)
            yield title, known.meaning.split(" over ")[0].rstrip(".") if known else name, Markup(drawn)
