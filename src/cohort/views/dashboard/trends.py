"""A number over the steps of a stage, and the one sentence that is true of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

from cohort.monitor.names import FIRST, Metric, metric
from cohort.views.cards.reading import is_number

POINTS = 240  # of a small chart
# Curves of the overview, in their order: beside the dozen to look at first what only some kinds of stage have.
CURATED = (
    *FIRST[:4],
    *("eval/accuracy", "pairs/accuracy", "pairs/gap", "reject/kept", "reject/prompts", "teacher/kl"),
    *("teacher/agreement", "groups/all_right", "groups/all_wrong"),
    *FIRST[4:],
)
MOST = 12
LAST_BITS = 1e-4  # nats: sampler and learner that are nearer are the same
# Whose rise or fall says nothing alone: fewer groups with signal because all are right is no failure, and neither is a
# distance in the last bits, or a machine that others use as well.
UNJUDGED = ("groups/signal", "policy/mismatch", "tokens_per_s")


@dataclass(frozen=True, slots=True)
class Trend:
    """One curve: its points, what the number is, and what it did."""

    name: str
    title: str
    unit: str
    meaning: str
    better: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    sentence: str


def brief(meaning: str) -> str:
    """What a number is, without what it is taken over and what follows from it."""
    return meaning.split(" over the tokens computed")[0].split(": ")[0].split(", over all tokens")[0].rstrip(".")


def points(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """The steps that have a number, and the number."""
    known = [(line["step"], line[name]) for line in lines if is_number(line.get(name))]
    return [step for step, _ in known], [float(value) for _, value in known]


def thinned(steps: Sequence[int], values: Sequence[float], most: int = POINTS) -> tuple[list[int], list[float]]:
    """At most so many points: means over as many steps each, the step being the last of these."""
    width = max(1, math.ceil(len(steps) / most))
    parts = [slice(i, i + width) for i in range(0, len(steps), width)]
    return [steps[part][-1] for part in parts], [statistics.fmean(values[part]) for part in parts]


def trend(lines: Sequence[Mapping[str, Any]], name: str) -> Trend | None:
    """The curve of a number; None where fewer than two steps have it."""
    steps, values = points(lines, name)
    if len(steps) < 2:
        return None
    known = metric(name) or Metric(name, "", "A number of a stage or reward of one's own.")
    meaning = brief(known.meaning)
    x, y = thinned(steps, values)
    if name in UNJUDGED:
        known = replace(known, better="")
    return Trend(name, name, known.unit, meaning, known.better, tuple(x), tuple(y), sentence(known, steps, values))


def curated(lines: Sequence[Mapping[str, Any]]) -> list[Trend]:
    """The dozen to look at first, of those that there are and that move or matter."""
    found = [one for name in CURATED if (one := trend(lines, name)) is not None]
    moving = [one for one in found if max(one.values) > min(one.values) or one.name in FIRST[:3]]
    moving = [one for one in moving if one.name != "policy/mismatch" or max(one.values) > LAST_BITS]
    return moving[:MOST]


def ends(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of the first and of the last tenth (three at least), and how far two such means are apart by chance:
    twice the standard error, of the changes from step to step.
    """
    width = max(1, min(len(values), max(3, len(values) // 10)))
    early, late = statistics.fmean(values[:width]), statistics.fmean(values[-width:])
    moves = [b - a for a, b in pairwise(values)]
    noise = statistics.pstdev(moves) / math.sqrt(2) if len(moves) > 1 else 0.0
    return early, late, 2 * noise * math.sqrt(2 / width)


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Each value as the mean of about `width` around it."""
    sums, half = [0.0, *accumulate(values)], width // 2
    spans = [(max(0, i - half), min(len(values), i + half + 1)) for i in range(len(values))]
    return [(sums[high] - sums[low]) / (high - low) for low, high in spans]


def sentence(known: Metric, steps: Sequence[int], values: Sequence[float]) -> str:
    """What a curve did: from where to where, by which step most of it, and whether that is what one wants."""
    if known.name.startswith("eval/"):
        early, late, noise, calm = values[0], values[-1], 0.0, list(values)
    else:
        early, late, noise = ends(values)
        calm = smooth(values, max(3, len(values) // 10))
    form = written(known.unit)
    if max(values) == min(values):
        return f"It is {form(values[0])} in every step."
    if abs(late - early) <= noise or form(early) == form(late):
        return f"It stays near {form(statistics.fmean(values))}, between {form(min(values))} and {form(max(values))}."
    way = "rises" if late > early else "falls"
    most = early + 0.8 * (late - early)
    reached = next((s for s, v in zip(steps, calm) if (v >= most) == (late > early) and v != early), steps[-1])
    wanted = {"up": late > early, "down": late < early}.get(known.better)
    judged = "" if wanted is None else ", as it should" if wanted else ", the wrong way"
    early_on = f", most of it by step {reached:,}" if reached < steps[-1] and len(values) > 4 else ""
    return f"It {way} from {form(early)} to {form(late)}{early_on}{judged}."


def written(unit: str) -> Any:
    """How a number of this unit is written."""
    if unit == "share":
        return lambda v: f"{v:.1%}" if 0.0005 < abs(v) < 0.9995 else f"{v:.0%}"
    return number


def number(value: float | None) -> str:
    """A number in about four figures: `18,420`, `0.953`, `3.3e-07`."""
    if value is None or not math.isfinite(value):
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if value == 0 or abs(value) >= 0.001 else f"{value:.1e}"


def fixed(value: Any, digits: int = 3, sign: str = "") -> str:
    """A number in a column, aligned by its point; what rounds to 0 has no minus sign."""
    if not is_number(value):
        return "-"
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"
