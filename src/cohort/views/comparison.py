"""The figure of a comparison: how arms learn, and where every arm ends on held-out problems."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import NamedTuple

# Colours that colour-blind eyes tell apart, with a marker each.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
MARKERS = "osD^vPX"
_KEY = re.compile(r"[\w.]+(?==)")


class Bar(NamedTuple):
    """An arm's mean after training with its interval, its mean before, and its learning curve: (x, mean, low, high)."""

    label: str
    before: float
    mean: float
    low: float
    high: float
    curve: Sequence[tuple[float, float, float, float]] = ()


def figure(bars: Sequence[Bar], title: str, unit: str = "steps") -> bytes | None:
    """A PNG, curves over a `unit` on the left; None where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    drawn = Figure(figsize=(11, max(3.2, 0.9 + 0.45 * len(bars))), layout="constrained")
    curves, ends = drawn.subplots(1, 2, width_ratios=(1.2, 1))
    for row, bar in enumerate(bars):
        colour, marker = COLOURS[row % len(COLOURS)], MARKERS[(row + row // len(COLOURS)) % len(MARKERS)]
        x, mean, low, high = zip(*bar.curve, strict=True) if bar.curve else ((), (), (), ())
        curves.plot(x, mean, marker=marker, markersize=4, color=colour, label=bar.label)
        curves.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
        spread = [[max(0.0, bar.mean - bar.low)], [max(0.0, bar.high - bar.mean)]]
        ends.errorbar([bar.mean], [row], xerr=spread, fmt=marker, capsize=3, color=colour)
        ends.plot([bar.before], [row], "|", color="black", markersize=14)
    curves.set(xlabel=unit, ylabel="held-out accuracy, 95% interval", title=title)
    curves.grid(alpha=0.3)
    ends.set_yticks(range(len(bars)), shortened([bar.label for bar in bars]))
    ends.set(xlim=(-0.02, 1.02), ylim=(len(bars) - 0.5, -0.5))
    ends.set_xlabel("after training; a bar: before")
    ends.grid(alpha=0.3, axis="x")
    with io.BytesIO() as buffer:
        drawn.savefig(buffer, format="png", dpi=130)
        return buffer.getvalue()


def shortened(labels: Sequence[str]) -> list[str]:
    """Labels such as `optimizer.learning_rate=1e-4` with the last part of each key, where it tells the keys apart."""
    last = {key: key.rpartition(".")[2] for label in labels for key in _KEY.findall(label)}
    if len({*last.values()}) < len(last):
        return list(labels)
    return [_KEY.sub(lambda found: last[found[0]], label) for label in labels]
