"""Plots as SVG that stand inside a page: colours come from its style sheet, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 440, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 14, 26
Number = float | int | None


def curve(title: str, steps: Sequence[int], values: Sequence[Number], form: Callable[[float], str], floor: bool) -> str:
    """A line over steps, with its last value written beside it. `floor`: the axis begins at 0."""
    known = [(step, float(y)) for step, y in zip(steps, values, strict=True) if y is not None and math.isfinite(y)]
    if len(known) < 2:
        return ""
    x, y, lines = _frame([step for step, _ in known], [v for _, v in known] + ([0.0] if floor else []), form)
    points = " ".join(f"{x(step):.1f},{y(v):.1f}" for step, v in known)
    first, last = known[0], known[-1]
    base = HEIGHT - BOTTOM
    return _svg(
        f"{title}: {form(first[1])} at step {first[0]}, {form(last[1])} at step {last[0]}",
        f'{lines}<polygon class="area" points="{x(first[0]):.1f},{base} {points} {x(last[0]):.1f},{base}"/>'
        f'<polyline class="line" points="{points}"/>'
        f'<circle class="dot" cx="{x(last[0]):.1f}" cy="{y(last[1]):.1f}" r="3.5"/>'
        f'<text class="last" x="{x(last[0]):.1f}" y="{max(y(last[1]) - 8, 11):.1f}">{escape(form(last[1]))}</text>',
    )


def intervals(evaluations: Sequence[Mapping[str, Any]], names: Mapping[str, str], form: Callable[[float], str]) -> str:
    """Accuracies over steps with their intervals, a colour for each measure."""
    found = {name: [one for one in evaluations if isinstance(one.get(name), float)] for name in names}
    found = {name: lines for name, lines in found.items() if lines}
    if not found:
        return ""
    every = [(line, name) for name, lines in found.items() for line in lines]
    heights = [line.get(f"{name}{end}", line[name]) for line, name in every for end in ("_low", "_high")]
    x, y, drawn = _frame([line["step"] for line, _ in every], [h for h in heights if h is not None] + [0.0], form)
    for number, (name, lines) in enumerate(found.items()):
        shift = 4 * (number - (len(found) - 1) / 2)
        points = [(x(line["step"]) + shift, line) for line in lines]
        way = " ".join(f"{a:.1f},{y(one[name]):.1f}" for a, one in points)
        drawn += f'<polyline class="line s{number}" points="{way}"/>'
        for a, one in points:
            low, high = one.get(f"{name}_low"), one.get(f"{name}_high")
            if low is not None and high is not None:
                drawn += f'<line class="bar s{number}" x1="{a:.1f}" x2="{a:.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}"/>'
            drawn += f'<circle class="dot s{number}" cx="{a:.1f}" cy="{y(one[name]):.1f}" r="4"/>'
        a, one = points[-1]
        below = y(one[name]) + (16 if number else -8)
        drawn += f'<text class="last s{number}" x="{a - 6:.1f}" y="{below:.1f}">{escape(form(one[name]))}</text>'
    return _svg("Held-out accuracy with 95% intervals", drawn)


def _frame(steps: Sequence[int], values: Sequence[float], form: Callable[[float], str]) -> tuple[Any, Any, str]:
    """Where a step and a value stand, and the lines and numbers of the axes."""
    low, high, ticks = _ticks(min(values), max(values))
    first, last = min(steps), max(steps)

    def x(step: float) -> float:
        return LEFT + (step - first) / max(last - first, 1) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    lines = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y(t) + 3.5:.1f}" text-anchor="end">{escape(form(t))}</text>'
        for t in ticks
    )
    marks = dict.fromkeys((first, (first + last) // 2, last))
    for mark in marks:
        anchor = "start" if mark == first else "end" if mark == last else "middle"
        lines += f'<text class="tick" x="{x(mark):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{mark:,}</text>'
    return x, y, lines


def _ticks(low: float, high: float) -> tuple[float, float, list[float]]:
    """Round numbers around these values: the lowest, the highest, and all between."""
    if high - low < 1e-12:
        low, high = low - abs(low) / 2 - 1e-6, high + abs(high) / 2 + 1e-6
    rough = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return first * step, last * step, [n * step for n in range(first, last + 1)]


def _svg(label: str, inner: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{inner}</svg>'


def shares(parts: Sequence[tuple[str, float]]) -> str:
    """One bar that is shared out, with what each part is and its share below."""
    total = sum(size for _, size in parts) or 1.0
    bars, names = "", ""
    for number, (name, size) in enumerate(parts):
        if size > 0:
            bars += f'<span class="p{number}" style="width:{100 * size / total:.3f}%"></span>'
            names += f'<li><i class="p{number}"></i>{escape(name)} <b>{size / total:.1%}</b></li>'
    return f'<div class="shares">{bars}</div><ul class="legend">{names}</ul>'
