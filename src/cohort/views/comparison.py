"""The figure of a comparison: where every arm ends on held-out problems, and where all began."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple


class Bar(NamedTuple):
    """An arm's mean after training with its interval, and its mean before."""

    label: str
    before: float
    mean: float
    low: float
    high: float


def figure(bars: Sequence[Bar], title: str) -> bytes | None:
    """A PNG; None where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    drawn = Figure(figsize=(6.5, 0.9 + 0.45 * len(bars)), layout="constrained")
    axis = drawn.add_subplot()
    for row, bar in enumerate(bars):
        ends = [[max(0.0, bar.mean - bar.low)], [max(0.0, bar.high - bar.mean)]]
        axis.errorbar([bar.mean], [row], xerr=ends, fmt="o", capsize=3, color="0.45" if row else "C0")
        axis.plot([bar.before], [row], "|", color="black", markersize=14)
    axis.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axis.set(xlim=(-0.02, 1.02), ylim=(len(bars) - 0.5, -0.5), title=title)
    axis.set_xlabel("held-out accuracy with 95% interval; a bar: before training")
    axis.grid(alpha=0.3, axis="x")
    with io.BytesIO() as buffer:
        drawn.savefig(buffer, format="png", dpi=130)
        return buffer.getvalue()
