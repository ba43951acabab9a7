"""Held-out problems before and after: what changed, problem by problem, and how sure the difference is."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from cohort.account.traces import rows_as_shown
from cohort.evaluate.compare import Paired, paired
from cohort.rewards.verifiers.final_answer import final_answer
from cohort.settings import Evaluate
from cohort.types import RIGHT, UserError
from cohort.views.cards.reading import is_number
from cohort.views.dashboard.runs import StageFiles
from cohort.wording import one_line

Change = Literal["gained", "lost", "better", "worse", "right", "wrong", "partly"]
CHANGES: dict[Change, str] = {  # flips first
    "lost": "right before, wrong now",
    "gained": "wrong before, right now",
    "worse": "less often right",
    "better": "more often right",
    "partly": "as often right",
    "wrong": "wrong both times",
    "right": "right both times",
}
_NAMES = {"greedy": "greedy", "sampled": "pass@1"}  # a way to answer, and the number that it is measured by
_COLUMNS = ("ticket", "member", "prompt_id", "prompt", "answer", "text", "turns", "accuracy")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one evaluation had answered to a problem: how often right, and its first completion."""

    rate: float
    text: str | None
    answer: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Problem:
    """A held-out problem in two evaluations."""

    prompt_id: str
    prompt: str | None
    gold: str | None
    before: Answer
    after: Answer
    change: Change


@dataclass(frozen=True, slots=True)
class EvaluationView:
    """Two evaluations of the same problems."""

    way: str
    ways: tuple[str, ...]
    steps: tuple[int, ...]  # that were evaluated this way
    before: int | None
    after: int | None
    lines: tuple[Mapping[str, Any], ...]  # every evaluation, its numbers
    paired: Paired | None
    counts: Mapping[str, int]  # by change
    problems: tuple[Problem, ...]
    why: str  # there is nothing to pair


def ways_of(stage: StageFiles) -> list[str]:
    """How it was evaluated: greedy, sampled, and those of suites."""
    return sorted({shard.way for shard in stage.evaluated}, key=lambda way: (way not in _NAMES, way))


def pair_of(stage: StageFiles, way: str) -> tuple[int, int] | None:
    """The first and the last step that were evaluated this way; the last is that of the weights that are kept."""
    steps = [shard.step for shard in stage.evaluated if shard.way == way]
    last = stage.kept if stage.kept in steps else steps[-1] if steps else None
    return (steps[0], last) if last is not None and last != steps[0] else None


def difference(stage: StageFiles, way: str) -> Paired | None:
    """The paired difference of these two."""
    pair = pair_of(stage, way)
    return None if pair is None else paired_difference(stage, way, *pair)


def paired_difference(stage: StageFiles, way: str, before: int, after: int) -> Paired | None:
    """The difference of any two, of the same problems; None where nothing can be paired."""
    margin = (Evaluate() if stage.table is None else stage.table.evaluate).margin
    paths = [stage.place / f"log/eval-{step:06d}-{way}.parquet" for step in (before, after)]
    try:
        stamps = [path.stat().st_mtime_ns for path in paths]
        return _paired(*paths, *stamps, margin)
    except (UserError, OSError):
        return None


@lru_cache(maxsize=64)
def _paired(before: Path, after: Path, _was: int, _now: int, margin: float) -> Paired:
    rates = [{key: one.rate for key, (_, _, one) in answers(path).items()} for path in (before, after)]
    return paired(rates[1], rates[0], margin)


def answers(path: Path, traces: str = "exposed") -> dict[str, tuple[str | None, str | None, Answer]]:
    """By problem its question, its gold answer, and what was answered. Raises `UserError` for a damaged file."""
    try:
        rows = rows_as_shown(pq.read_table(path, columns=list(_COLUMNS)).to_pylist(), traces)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(f"{path.name} cannot be read as recorded answers: {one_line(error)}") from None
    by_problem: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["ticket"], row["member"])):
        if row["member"] >= 0 and is_number(row["accuracy"]):
            by_problem.setdefault(row["prompt_id"], []).append(row)
    return {key: (of[0]["prompt"], of[0]["answer"], _answer(of)) for key, of in by_problem.items()}


def _answer(rows: Sequence[Mapping[str, Any]]) -> Answer:
    text, rate = rows[0]["text"], statistics.fmean(row["accuracy"] >= RIGHT for row in rows)
    return Answer(rate, text, final_answer(text) if text else None, len(rows))


def evaluation_view(
    stage: StageFiles, way: str = "", before: int | None = None, after: int | None = None, only: str = ""
) -> EvaluationView:
    """Two evaluations, the first and the last by default; `only` one kind of change. Raises `UserError` for a way or a
    step that was not evaluated.
    """
    ways = ways_of(stage)
    lines = tuple(stage.evaluations)
    if not ways:
        why = "No answers were kept, so nothing can be compared problem by problem." if lines else (
            "Nothing is held out in this stage: task.held_out names what to evaluate on."
        )  # fmt: skip
        return EvaluationView("", (), (), None, None, lines, None, {}, (), why)
    way = way or ways[0]
    if way not in ways:
        raise UserError(f"nothing was evaluated as {way!r}; there is {', '.join(ways)}")
    steps = tuple(shard.step for shard in stage.evaluated if shard.way == way)
    pair = pair_of(stage, way) or (steps[0], steps[0])
    before, after = pair[0] if before is None else before, pair[1] if after is None else after
    olds, news = (answers(stage.shard(step, way).path, stage.run.traces) for step in (before, after))
    problems = [
        Problem(key, prompt, gold, olds[key][2], now, changed(olds[key][2].rate, now.rate))
        for key, (prompt, gold, now) in news.items()
        if key in olds
    ]
    order = list(CHANGES)
    problems.sort(key=lambda one: (order.index(one.change), -abs(one.after.rate - one.before.rate)))
    counts: dict[str, int] = {name: sum(one.change == name for one in problems) for name in CHANGES}
    found = paired_difference(stage, way, before, after) if before != after else None
    why = "" if before != after else "It was evaluated once: there is nothing to compare with."
    shown = tuple(one for one in problems if not only or one.change == only)
    return EvaluationView(way, tuple(ways), steps, before, after, lines, found, counts, shown, why)


def changed(before: float, after: float) -> Change:
    """What became of a problem."""
    if (before >= RIGHT) != (after >= RIGHT):
        return "gained" if after >= RIGHT else "lost"
    if before == after:
        return "right" if after >= 1 else "wrong" if after <= 0 else "partly"
    return "better" if after > before else "worse"
