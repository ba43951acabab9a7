"""Whether answers need their traces, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cohort.wording import counted

CHANGES = {"removed": "removed", "corrupted": "with other numbers", "exchanged": "another problem's"}
MOST, FEW = 0.5, 0.1  # shares of answers that change: from which on the trace is needed, and up to which it is not


def need_of_traces(metrics: Mapping[str, Any], place: str = "eval/") -> str:
    """`traces of 100 problems (3 have none): removed, the answer changes in 83.0% [..]; ...: the answers need them`.

    What is said of them holds for the whole interval. "" where nothing was measured; `place` goes before the names.
    """
    if f"{place}traced" not in metrics:
        return ""
    found = {name: metrics[key] for name in CHANGES if (key := f"{place}trace_{name}_changed") in metrics}
    untraced = int(metrics[f"{place}untraced"])
    if not found:
        return f"traces: none of {counted(untraced, 'answer')} has one"
    shares = [f"{CHANGES[name]} {_interval(metrics, f'{place}trace_{name}_changed')}" for name in found]
    if (key := f"{place}trace_followed") in metrics:
        shares[-1] += f" (it is that problem's in {metrics[key]:.1%})"
    none = f" ({untraced} more have none)" if untraced else ""
    of = counted(int(metrics[f"{place}traced"]), "problem")
    return f"traces of {of}{none}: answers that change: {', '.join(shares)}: {_verdict(metrics, place)}"


def _interval(metrics: Mapping[str, Any], key: str) -> str:
    return f"{metrics[key]:.1%} [{metrics[f'{key}_low']:.1%}, {metrics[f'{key}_high']:.1%}]"


def _verdict(metrics: Mapping[str, Any], place: str) -> str:
    ends = {
        name: (
            metrics.get(f"{place}trace_{name}_changed_low", 0.0),
            metrics.get(f"{place}trace_{name}_changed_high", 1.0),
        )
        for name in CHANGES
    }
    if ends["removed"][0] >= MOST:
        return "the answers need their traces"
    if ends["removed"][1] > FEW:
        return "some answers need their traces"
    if all(high <= FEW for _, high in ends.values()):
        return "the answers do not depend on their traces"
    return "the answers can do without their traces, and some follow what these say"
