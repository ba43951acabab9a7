"""Where the time of a run went, step by step: sample, score, learn, and what lies between."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from cohort.views.dashboard.runs import StageFiles

PARTS = {"sample": "sampling", "score": "waiting for rewards", "teacher": "asking teachers", "learn": "learning"}
REST, BETWEEN, EVALUATING, SAVING, BOTH = (
    *("the rest of a step", "between steps", "evaluating", "saving"),
    "evaluating and saving",
)
LEAST = 0.0005  # of the time: what is less is not named
SHOWN = 24  # steps of the Gantt chart


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time of a step, in seconds from the first that is shown."""

    what: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Row:
    """A step on the chart; `after` names what lies between it and the next one."""

    step: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """The last steps as a Gantt chart, and the shares of the whole stage."""

    rows: tuple[Row, ...]
    seconds: float  # that the chart spans
    shares: tuple[tuple[str, float], ...]  # in seconds, over all steps
    whole: float | None  # from the first to the last entry of the chain
    longest: tuple[tuple[str, int, float], ...]  # idle stretches: what they were, after which step, seconds


def timeline(stage: StageFiles, until: int | None = None) -> Timeline:
    """The time of a stage; the chart ends at step `until`."""
    steps = stage.steps
    ends = _ends(stage.run.chain, stage.name)
    sums: dict[str, float] = {}
    for line in steps:
        for words, took in _parts(line):
            sums[words] = sums.get(words, 0.0) + took
    shares = [(words, sums[words]) for words in (*PARTS.values(), REST) if words in sums]
    times = sorted(time for _, _, time in ends)
    whole = times[-1] - times[0] if len(times) > 1 else None
    gaps = _gaps(steps, ends)
    if gaps:
        for what in dict.fromkeys(what for what, _, _ in gaps):
            shares.append((what, math.fsum(s for w, _, s in gaps if w == what)))
    shown = [line for line in steps if until is None or line["step"] <= until][-SHOWN:]
    rows, span = _rows(shown, {step: time for kind, step, time in ends if kind == "step"})
    longest = sorted(gaps, key=lambda gap: -gap[2])[:5]
    least = LEAST * math.fsum(seconds for _, seconds in shares)
    return Timeline(tuple(rows), span, tuple((w, s) for w, s in shares if s > least), whole, tuple(longest))


def _parts(line: Mapping[str, Any]) -> list[tuple[str, float]]:
    """What a step did, in its order and in seconds. One that only learns, as of supervised training, names no parts."""
    found = [(words, line[f"time/{name}_s"]) for name, words in PARTS.items() if line.get(f"time/{name}_s")]
    rest = (line.get("time/step_s") or 0.0) - math.fsum(took for _, took in found)
    return [*found, (REST if found else PARTS["learn"], rest)] if rest > 1e-6 else found


def _ends(chain: Sequence[Mapping[str, Any]], stage: str) -> list[tuple[str, int, float]]:
    """When what was written down: kind of the entry, its step, seconds of the clock."""
    found = []
    for entry in chain:
        if entry.get("recipe", {}).get("stage") != stage:
            continue
        step = entry.get("metrics", {}).get("step") if entry.get("kind") == "step" else None
        step = step if step is not None else (entry.get("policy") or {}).get("step", entry.get("n", 0))
        try:
            found.append((str(entry.get("kind")), int(step or 0), datetime.fromisoformat(entry["time"]).timestamp()))
        except (KeyError, TypeError, ValueError):
            continue
    return found


def _gaps(steps: Sequence[Mapping[str, Any]], ends: Sequence[tuple[str, int, float]]) -> list[tuple[str, int, float]]:
    """Time between steps, and what it was: evaluating, saving, or nothing that is named."""
    at = {step: time for kind, step, time in ends if kind == "step"}
    saved = {step for kind, step, _ in ends if kind == "checkpoint"}
    found = []
    for before, line in pairwise(steps):
        one, two = before["step"], line["step"]
        if one in at and two in at:
            idle = at[two] - at[one] - (line.get("time/step_s") or 0.0)
            evaluated = any(name.startswith("eval/") for name in before)
            what = (BOTH if one in saved else EVALUATING) if evaluated else SAVING if one in saved else BETWEEN
            found += [(what, one, idle)] if idle > 0.001 else []
    return found


def _rows(steps: Sequence[Mapping[str, Any]], at: Mapping[int, float]) -> tuple[list[Row], float]:
    """Steps as spans from the first of them; without a clock they stand end to end."""
    rows: list[Row] = []
    clock, zero = 0.0, None
    for line in steps:
        took = line.get("time/step_s") or 0.0
        end = at.get(line["step"])
        if end is not None:
            zero = end - took if zero is None else zero
            clock = max(clock, end - took - zero)
        start, spans = clock, []
        for words, part in _parts(line):
            spans.append(Span(words, start, start + part))
            start += part
        clock += took
        rows.append(Row(line["step"], tuple(spans)))
    return rows, clock
