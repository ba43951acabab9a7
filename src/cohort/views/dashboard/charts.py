"""Small pictures as SVG, with no style of their own: colours are classes of the style sheet, and each has a shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from cohort.views.cards.plots import curve, intervals
from cohort.views.dashboard.groups import judged
from cohort.views.dashboard.timeline import BETWEEN, BOTH, EVALUATING, PARTS, REST, SAVING, Timeline
from cohort.views.dashboard.trends import Trend, number, written

CELL = 14  # of a strip
KEYS = {words: name for name, words in PARTS.items()}  # what a time was spent with -> the class of its colour
KEYS |= {REST: "rest", BETWEEN: "between", EVALUATING: "evaluate", SAVING: "save", BOTH: "evaluate"}


def small(trend: Trend) -> Markup:
    """One curve over steps."""
    form = written(trend.unit)
    floor = trend.unit == "share" or 0 <= min(trend.values) < 0.5 * max(trend.values)
    return Markup(curve(trend.title, trend.steps, trend.values, form, floor))


def accuracies(evaluations: Sequence[Mapping[str, Any]]) -> Markup:
    """Held-out accuracy over steps, with intervals."""
    names = {"greedy": "greedy", "pass@1": "sampled", "accuracy": "pairs"}
    there = {name: label for name, label in names.items() if any(name in line for line in evaluations)}
    return Markup(intervals(evaluations, there, "{:.0%}".format)) if len(evaluations) > 1 else Markup("")


def strip(rewards: Sequence[float | None], accuracies: Sequence[float | None], low: float, high: float) -> Markup:
    """The rewards of a group, a mark each: a disc is right, a cross wrong, a ring of which some is filled in between,
    a small ring where nothing says what is right.
    """
    found = []
    for at, (reward, accuracy) in enumerate(zip(rewards, accuracies, strict=True)):
        share = 0.0 if reward is None or not math.isfinite(reward) else (reward - low) / ((high - low) or 1)
        kind = judged(accuracy)
        found.append(mark(kind, at * CELL, share))
    width = max(len(rewards), 1) * CELL
    right = sum(judged(a) == "right" for a in accuracies)
    label = f"{right} of {len(rewards)} right; rewards {', '.join(number(r) for r in rewards[:16])}"
    return _svg(width, CELL, label, Markup("").join(found), "strip")


def mark(kind: str, x: float = 0, share: float = 1.0) -> Markup:
    """The mark of one completion at `x`."""
    middle = x + CELL / 2
    if kind == "right":
        return Markup('<circle class="right" cx="{}" cy="7" r="4.6"/>').format(middle)
    if kind == "wrong":
        a, b = middle - 3.4, middle + 3.4
        return Markup('<path class="wrong" d="M{} 3.6L{} 10.4M{} 3.6L{} 10.4"/>').format(a, b, b, a)
    if kind == "unknown":
        return Markup('<circle class="unknown" cx="{}" cy="7" r="3.4"/>').format(middle)
    height = round(9.2 * min(max(share, 0.0), 1.0), 1)
    return Markup(
        '<rect class="partly" x="{}" y="2.4" width="9.2" height="9.2" rx="2"/>'
        '<rect class="fill" x="{}" y="{}" width="9.2" height="{}" rx="1"/>'
    ).format(middle - 4.6, middle - 4.6, round(11.6 - height, 1), height)


def judgement(kind: str) -> Markup:
    """The mark alone, with its word for those who do not see it."""
    return _svg(CELL, CELL, kind, mark(kind, 0, 0.5), "strip one")


def interval(mean: float, low: float, high: float) -> Markup:
    """A difference with its interval, on a line with 0 marked."""
    most = max(abs(low), abs(high), 1e-9) * 1.08

    def x(value: float) -> float:
        return round(150 + 140 * value / most, 1)

    tone = "up" if low > 0 else "down" if high < 0 else "flat"
    drawn = Markup(
        '<line class="axis" x1="8" x2="292" y1="16" y2="16"/><line class="zero" x1="150" x2="150" y1="6" y2="26"/>'
        '<line class="whisker {0}" x1="{1}" x2="{2}" y1="16" y2="16"/>'
        '<circle class="whisker {0}" cx="{3}" cy="16" r="5"/>'
        '<text class="tick" x="150" y="40" text-anchor="middle">no change</text>'
    ).format(tone, x(low), x(high), x(mean))
    label = f"difference {100 * mean:+.1f} points, 95% interval {100 * low:+.1f} to {100 * high:+.1f}"
    return _svg(300, 44, label, drawn, "interval")


def key(name: str, at: int) -> str:
    """The class of the colour of a part of a bar, that at this place of all."""
    return KEYS.get(name, f"p{at % 8}")


def shares(parts: Sequence[tuple[str, float]]) -> Markup:
    """One bar that is shared out."""
    total = sum(size for _, size in parts) or 1.0
    x, drawn = 0.0, []
    for at, (name, size) in enumerate(parts):
        width = 1000 * size / total
        drawn.append(
            _draw('<rect class="part {}" x="{:.1f}" width="{:.1f}" height="20" y="0"/>', key(name, at), x, width)
        )
        x += width
    label = ", ".join(f"{name} {size / total:.0%}" for name, size in parts)
    return _svg(1000, 20, label, Markup("").join(drawn), "shares", stretch=True)


def histogram(counts: Sequence[int], labels: Sequence[str], label: str) -> Markup:
    """Bars with their counts above."""
    most, wide = max(counts, default=0) or 1, 36
    drawn = []
    for at, (count, word) in enumerate(zip(counts, labels, strict=True)):
        height, middle = round(80 * count / most, 1), at * wide + wide / 2
        bar = '<rect class="bar" x="{}" y="{}" width="{}" height="{}" rx="2"/>'
        drawn.append(_draw(bar, at * wide + 3, 98 - height, wide - 6, height))
        drawn += [_tick(middle, 94 - height, f"{count:,}"), _tick(middle, 114, word)]
    return _svg(len(counts) * wide, 120, label, Markup("").join(drawn), "bars")


def heat(rows: Sequence[Sequence[float]], names: Sequence[str], columns: Sequence[int], label: str) -> Markup:
    """A map of shares: the fuller a cell, the larger its square; 0 is empty."""
    left, size = 74, 18
    drawn = []
    for y, (row, name) in enumerate(zip(rows, names, strict=True)):
        drawn.append(_tick(left - 8, y * size + 13, name, "end"))
        for x, share in enumerate(row):
            side = round((size - 2) * math.sqrt(share), 1)
            if side > 0.4:
                at = (left + x * size + (size - side) / 2, y * size + (size - side) / 2)
                cell = (
                    '<rect class="heat" x="{:.1f}" y="{:.1f}" width="{}" height="{}" rx="1.5">'
                    "<title>until step {}, {}: {:.0%}</title></rect>"
                )
                drawn.append(_draw(cell, *at, side, side, columns[x], name, share))
    bottom = len(rows) * size + 16
    for x in dict.fromkeys((0, len(columns) // 2, len(columns) - 1)):
        drawn.append(_tick(left + x * size + size / 2, bottom, f"{columns[x]:,}"))
    return _svg(left + len(columns) * size + 16, bottom + 6, label, Markup("").join(drawn), "map")


def scatter(points: Sequence[tuple[float, float, int]], x_name: str, y_name: str) -> Markup:
    """Points with axes; a later step is a fuller disc."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    (x0, x1), (y0, y1) = (min(xs), max(xs)), (min(ys), max(ys))
    axes = (
        '<line class="axis" x1="50" x2="410" y1="160" y2="160"/><line class="axis" x1="50" x2="50" y1="10" y2="160"/>'
    )
    drawn = [Markup(axes), _tick(410, 178, f"{x_name} {number(x0)} to {number(x1)}", "end")]
    drawn.append(_tick(56, 18, f"{y_name} up to {number(y1)}", "start"))
    for x, y, step in points:
        at = (50 + 355 * (x - x0) / ((x1 - x0) or 1), 158 - 142 * (y - y0) / ((y1 - y0) or 1))
        late = 1 + 4 * step // max(points[-1][2], 1)
        dot = '<circle class="dot late{}" cx="{:.1f}" cy="{:.1f}" r="3"><title>step {}: {}, {}</title></circle>'
        drawn.append(_draw(dot, min(late, 5), *at, step, number(x), number(y)))
    return _svg(420, 184, f"{y_name} over {x_name}, a point a step", Markup("").join(drawn), "scatter")


def gantt(found: Timeline) -> Markup:
    """Steps as rows, what they did as bars along the clock; what is between bars is idle."""
    height, left, width, right = 15, 58, 960, 28
    scale = (width - left - right) / (found.seconds or 1)
    bottom = len(found.rows) * height
    drawn = []
    for tick in range(6):
        x = left + tick * (width - left - right) / 5
        drawn.append(_draw('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="{1}"/>', x, bottom))
        drawn.append(_tick(round(x, 1), bottom + 14, f"{found.seconds * tick / 5:.1f} s"))
    for y, row in enumerate(found.rows):
        drawn.append(_tick(left - 8, y * height + 11, f"{row.step:,}", "end"))
        for span in row.spans:
            took = span.end - span.start
            bar = (
                '<rect class="span {}" x="{:.2f}" y="{}" width="{:.2f}" height="{}" rx="1">'
                "<title>step {}, {}: {:.3f} s</title></rect>"
            )
            at = (left + span.start * scale, y * height + 2, max(took * scale, 0.4), height - 5)
            drawn.append(_draw(bar, KEYS[span.what], *at, row.step, span.what, took))
    label = f"the last {len(found.rows)} steps, {found.seconds:.1f} seconds, by what they did"
    return _svg(width, bottom + 20, label, Markup("").join(drawn), "gantt")


def _draw(shape: str, *values: Any) -> Markup:
    """A shape with what stands in it, which is escaped."""
    return Markup(shape).format(*values)


def _tick(x: float, y: float, text: str, anchor: str = "middle") -> Markup:
    return _draw('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>', x, y, anchor, text)


def _svg(width: float, height: float, label: str, inner: Markup, kind: str, stretch: bool = False) -> Markup:
    ratio = Markup(' preserveAspectRatio="none"') if stretch else Markup("")
    size = Markup("") if stretch else Markup(' width="{}" height="{}"').format(round(width), round(height))
    return Markup('<svg class="{}" viewBox="0 0 {} {}"{}{} role="img" aria-label="{}">{}</svg>').format(
        kind, round(width), round(height), size, ratio, escape(label), inner
    )
