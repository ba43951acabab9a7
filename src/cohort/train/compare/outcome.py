"""What a comparison found: every arm before and after, paired with its start and with the first arm."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.algorithms.fields import FIELDS
from cohort.evaluate.accuracy import Accuracy, Measure
from cohort.evaluate.compare import Paired, among, paired
from cohort.preflight.objective import settled_objective
from cohort.recipe import Recipe
from cohort.recipe.resolve import flatten
from cohort.record.metrics import read_metrics
from cohort.record.rollouts import read_groups
from cohort.settings import Stage
from cohort.train.compare.arms import Arm, Comparison
from cohort.train.compare.running import diverged
from cohort.train.directory import run_directory
from cohort.train.stage import tables_of
from cohort.types import UserError

Values = Mapping[str, float]  # of every problem with every seed, its share of right answers
# What differs between arms because they are arms.
OF_AN_ARM = ("run.directory", "run.stop", "run.steps", "run.gate")
OF_ALL_KINDS = ("kind", "optimizer", "policy", "rollout")  # tables that mean the same in every kind of stage


@dataclass(frozen=True, slots=True)
class Point:
    """Held-out accuracy at one evaluation, and what runs had used by then, on average over the seeds."""

    step: float
    tokens: float
    seconds: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Result:
    """One arm: held-out accuracy `before` and `after`, their paired `difference`, that of each seed alone, and
    `behind`: the first arm minus this one, both after training; None for the first itself. `tokens_before` and
    `tokens_after` are mean lengths of the held-out completions. `same_start`: it did to every problem before training
    what the first arm did. `steps` and `tokens_sampled` are means over the runs, `seconds` their sum, `step_seconds`
    the median of a step; `memory_gb` is the most that a run's process had. `collapsed` are the seeds that ended for
    certain below where they began, or whose numbers were no longer finite. `differs` are the hyper-parameters that the
    first arm has otherwise.
    """

    arm: str
    says: str
    before: Measure
    after: Measure
    difference: Paired
    by_seed: dict[int, float]
    behind: Paired | None
    tokens_before: float
    tokens_after: float
    steps: float
    tokens_sampled: float
    seconds: float
    step_seconds: float
    memory_gb: float | None
    collapsed: list[int]
    differs: dict[str, Any]
    curve: list[Point]
    runs: list[Path]
    same_start: bool


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """Held-out completions at a step of one run."""

    step: int
    per_problem: Values
    clusters: Mapping[str, Hashable]
    tokens: int
    completions: int


@dataclass(frozen=True, slots=True)
class _Measured:
    """The problems of all seeds: before, after, and which of them are one problem; None where each stands alone."""

    before: Values
    after: Values
    clusters: Mapping[str, Hashable] | None
    runs: list[list[_Evaluation]]


def results(compared: Comparison) -> tuple[str, list[Result]]:
    """What was measured, `greedy` or `sampled`, and every arm. Raises `UserError` where an evaluation is missing."""
    stage = compared.stage
    kind, margin = "greedy" if stage.evaluate.greedy else "sampled", stage.evaluate.margin
    measured = {arm.label: _measured(arm, stage, kind) for arm in compared.arms}
    base = compared.base
    own = measured[base.label]
    others = {label: one for label, one in measured.items() if label != base.label}
    behind = among({label: paired(own.after, one.after, margin, own.clusters) for label, one in others.items()})
    differences = {label: paired(one.after, one.before, margin, one.clusters) for label, one in measured.items()}
    differences |= among({label: differences[label] for label in others})
    found = []
    for arm in compared.arms:
        one, runs = measured[arm.label], [run_directory(recipe) for recipe in arm.recipes]
        steps = [_lines(run) for run in runs]
        every = [line for lines in steps for line in lines]
        ends = one.runs[0][0], [evaluations[-1] for evaluations in one.runs]
        seconds = [line.get("time/step_s") or 0.0 for line in every]
        found.append(
            Result(
                arm=arm.label,
                says=arm.says,
                before=_measure(one.before, one.clusters),
                after=_measure(one.after, one.clusters),
                difference=differences[arm.label],
                by_seed={seed: _change(run) for seed, run in zip(compared.seeds, one.runs, strict=True)},
                behind=behind.get(arm.label),
                tokens_before=ends[0].tokens / ends[0].completions,
                tokens_after=sum(e.tokens for e in ends[1]) / sum(e.completions for e in ends[1]),
                steps=statistics.fmean(sum(line["step"] > 0 for line in lines) for lines in steps),
                tokens_sampled=math.fsum(line.get("tokens/sampled") or 0.0 for line in every) / len(runs),
                seconds=math.fsum(seconds),
                step_seconds=statistics.median(seconds) if seconds else math.nan,
                memory_gb=max((gb for line in every if (gb := line.get("memory/peak_gb"))), default=None),
                collapsed=_collapsed(compared, arm, one, margin),
                differs={} if arm is base else _differs(base.recipes[0].stages[-1], arm.recipes[0].stages[-1]),
                curve=_curve(one.runs, steps),
                runs=runs,
                same_start=one.before == own.before,
            )
        )
    return kind, found


def conclusion(compared: Comparison, found: Sequence[Result]) -> str:
    """In a sentence: how much of what the recipe gains its controls gain as well; of other arms, which end better than
    the first, and which worse.
    """
    return _of_controls(found) if compared.controls else _of_arms(found)


def _of_controls(found: Sequence[Result]) -> str:
    own = found[0]
    controls = sorted(found[1:], key=lambda one: -one.difference.mean)
    said = "; ".join(f"{one.arm} {_points(one.difference)}" for one in controls)
    gained = _points(own.difference)
    if own.difference.verdict != "improved":
        return f"the recipe changes by {gained} points ({own.difference.verdict}): no gain to explain; {said}"
    gain, best = f"the recipe gains {gained} points; {said}", controls[0]
    if best.difference.verdict != "improved":
        return f"{gain}: no control gains for certain"
    share = best.difference.mean / own.difference.mean
    part = "all" if share >= 1 else f"{share:.0%}"
    return f"{gain}: {part} of the gain needs no right answers ({best.arm})"


def _of_arms(found: Sequence[Result]) -> str:
    base = found[0]
    verdicts = {"regressed": "better than it", "improved": "worse", "": "not told apart from it"}
    listed: dict[str, list[str]] = {words: [] for words in verdicts.values()}
    for one in found[1:]:
        assert one.behind is not None
        words = verdicts.get(one.behind.verdict, verdicts[""])
        listed[words].append(f"{one.arm} ({0 - 100 * one.behind.mean:+.1f})")
    said = "; ".join(f"{words}: {', '.join(arms)}" for words, arms in listed.items() if arms)
    return f"{base.arm} ends at {base.after.mean:.1%}; {said}"


def _points(difference: Paired) -> str:
    return f"{100 * difference.mean:+.1f}"


def _measure(values: Values, clusters: Mapping[str, Hashable] | None) -> Measure:
    return Measure.of(list(values.values()), None if clusters is None else [clusters[problem] for problem in values])


def _change(run: Sequence[_Evaluation]) -> float:
    first, last = run[0].per_problem, run[-1].per_problem
    both = [problem for problem in first if problem in last]
    return math.fsum(last[problem] - first[problem] for problem in both) / len(both)


def _collapsed(compared: Comparison, arm: Arm, measured: _Measured, margin: float) -> list[int]:
    found = []
    for seed, recipe, run in zip(compared.seeds, arm.recipes, measured.runs, strict=True):
        change = paired(run[-1].per_problem, run[0].per_problem, margin, run[-1].clusters or None)
        if change.verdict == "regressed" or diverged(recipe):
            found.append(seed)
    return found


def _differs(base: Stage, other: Stage) -> dict[str, Any]:
    """The hyper-parameters of a stage that another one has otherwise, those of an objective as they come out; of a
    stage of another kind those that both have, and those of the tables that only this kind has.
    """
    own, now = _hyper_parameters(base), _hyper_parameters(other)
    alike, read = base.kind == other.kind, tables_of(base)
    differs = [key for key, value in now.items() if (value != own[key] if key in own else alike)]
    if not alike:
        differs = [key for key in differs if key.split(".")[0] in OF_ALL_KINDS]
        differs += [key for key in now if key.split(".")[0] not in (*read, "kind")]
    return {key: now[key] for key in differs}


def _hyper_parameters(stage: Stage) -> dict[str, Any]:
    read = {*tables_of(stage), "kind"} - {"evaluate", "record", "monitor", "suite", "objective"}
    found = {key: value for key, value in flatten(stage).items() if key.split(".")[0] in read and key not in OF_AN_ARM}
    if stage.kind == "grpo":
        found |= {f"objective.{field}": getattr(settled_objective(stage), field) for field in FIELDS}
    return found


def _measured(arm: Arm, stage: Stage, kind: str) -> _Measured:
    """An arm by its evaluations, from that before the first step to the last one that there is. With several seeds a
    problem is one cluster: the same problem under another seed is no new problem.
    """
    runs = [_evaluations(recipe, stage, kind) for recipe in arm.recipes]
    first, _ = _joined([run[0] for run in runs])
    last, of = _joined([run[-1] for run in runs])
    both = [problem for problem in first if problem in last]
    for number, recipe in enumerate(arm.recipes):
        if not any(problem.startswith(f"{number}/") for problem in both):
            log = run_directory(recipe) / "log"
            raise UserError(f"{log}: no held-out problem was scored both before and after training")
    before, after = ({problem: values[problem] for problem in both} for values in (first, last))
    alone = len(runs) == 1 and stage.evaluate.cluster is None
    return _Measured(before, after, None if alone else {problem: of[problem] for problem in both}, runs)


def _joined(runs: Sequence[_Evaluation]) -> tuple[dict[str, float], dict[str, Hashable]]:
    """The problems of an evaluation of every run, by its number and their own name; and the cluster of each, which
    is the same in all runs: where none is told, the problem itself.
    """
    values = {f"{i}/{problem}": value for i, one in enumerate(runs) for problem, value in one.per_problem.items()}
    of = {f"{i}/{name}": one.clusters.get(name, name) for i, one in enumerate(runs) for name in one.per_problem}
    return values, of


def _evaluations(recipe: Recipe, stage: Stage, kind: str) -> list[_Evaluation]:
    log, found = run_directory(recipe) / "log", []
    steps = {int(m[1]) for file in log.glob("eval-*") if (m := re.fullmatch(rf"eval-(\d+)-{kind}\.parquet", file.name))}
    if steps and diverged(recipe) is None:  # what is no longer finite is not evaluated
        steps.add(max(line["step"] for line in read_metrics(run_directory(recipe) / "metrics.jsonl")))
    for step in sorted({0, *steps}):
        file = log / f"eval-{step:06d}-{kind}.parquet"
        if not file.exists():
            raise UserError(f"{file} is missing: held-out completions of this run are lost, so it cannot be compared")
        groups = tuple(read_groups(file))
        one = Accuracy(kind, max(len(group.rollouts) for group in groups), groups, stage.evaluate.cluster)
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        tokens = sum(rollout.mask.count(True) for rollout in rollouts)
        found.append(_Evaluation(step, one.per_problem, one.clusters or {}, tokens, len(rollouts)))
    return found


def _curve(runs: Sequence[Sequence[_Evaluation]], lines: Sequence[Sequence[Mapping[str, Any]]]) -> list[Point]:
    """The evaluations of an arm's runs one after another: those that all runs had, and the last of each."""
    shortest = min(len(run) for run in runs)
    found = []
    for place in [*range(shortest - 1), -1]:
        at = [run[place] for run in runs]
        until = [[line for line in of if line["step"] <= one.step] for of, one in zip(lines, at, strict=True)]
        measure = _measure(*_joined(at))
        found.append(
            Point(
                step=statistics.fmean(one.step for one in at),
                tokens=_mean_sum(until, "tokens/sampled"),
                seconds=_mean_sum(until, "time/step_s"),
                mean=measure.mean,
                low=measure.low,
                high=measure.high,
            )
        )
    return found


def _lines(run: Path) -> list[dict[str, Any]]:
    """The numbers of a run's steps; those of stages before its last one as of step 0."""
    before = [line for file in sorted(run.glob("stages/*/metrics.jsonl")) for line in read_metrics(file)]
    own = [line for line in read_metrics(run / "metrics.jsonl") if line["step"]]
    return [*({**line, "step": 0} for line in before if line["step"]), *own]


def _mean_sum(runs: Sequence[Sequence[Mapping[str, Any]]], name: str) -> float:
    return statistics.fmean(math.fsum(line.get(name) or 0.0 for line in lines) for lines in runs)
