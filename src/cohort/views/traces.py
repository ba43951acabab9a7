"""Whether answers need their traces, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cohort.wording import counted

CHANGES = {
    "removed": "without their traces",
    "corrupted": "with other numbers in them",
    "exchanged": "with another problem's",
}
MOST, FEW = 0.5, 0.1  # shares from which on something is said of all answers, and up to which of none


def need_of_traces(metrics: Mapping[str, Any], place: str = "eval/") -> str:
    """`traces of 100 problems (3 more have none): right 80.5%, without their traces 4.0%; other answers without their
    traces 95.5% [...], ...: the answers need their traces, and follow them`.

    What is said at the end holds for the whole of the intervals. "" where nothing was measured. `place` goes before the
    names of the metrics.
    """

    def ends(name: str) -> tuple[float, float]:
        return metrics[f"{place}{name}_low"], metrics[f"{place}{name}_high"]

    def share(name: str) -> str:
        low, high = ends(name)
        return f"{metrics[place + name]:.1%} [{low:.1%}, {high:.1%}]"

    if f"{place}traced" not in metrics:
        return ""
    untraced = int(metrics[f"{place}untraced"])
    if f"{place}trace_removed_changed" not in metrics:
        return f"traces: none of {counted(untraced, 'answer')} has one"
    changed = {name: key for name in CHANGES if place + (key := f"trace_{name}_changed") in metrics}
    others = ", ".join(f"{CHANGES[name]} {share(key)}" for name, key in changed.items())
    of = counted(int(metrics[f"{place}traced"]), "problem") + (f" ({untraced} more have none)" if untraced else "")
    right, without = metrics[f"{place}traced_right"], metrics[f"{place}trace_removed_right"]
    verdict = _verdict({name: ends(key) for name, key in changed.items()})
    if f"{place}trace_followed" in metrics:
        others += f" (that problem's answer {share('trace_followed')})"
        verdict += _following(*ends("trace_followed")) if verdict == NEEDED else ""
    return f"traces of {of}: right {right:.1%}, without their traces {without:.1%}; other answers {others}: {verdict}"


NEEDED = "the answers need their traces"


def _verdict(changed: Mapping[str, tuple[float, float]]) -> str:
    low, high = changed["removed"]
    if low >= MOST:
        return NEEDED
    if high > FEW:
        return "some answers need their traces"
    if all(end <= FEW for _, end in changed.values()):
        return "the answers do not depend on their traces"
    return "the answers can do without their traces, and some follow what these say"


def _following(low: float, high: float) -> str:
    return (
        ", and follow them" if low >= MOST else ", but do not follow them" if high <= FEW else ", and some follow them"
    )
