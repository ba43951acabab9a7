"""What a comparison found: every arm before and after, paired with its start and with the recipe as it is."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cohort.evaluate.accuracy import Accuracy, Measure
from cohort.evaluate.compare import Paired, among, paired
from cohort.record.metrics import read_metrics
from cohort.record.rollouts import read_groups
from cohort.settings import Stage
from cohort.train.compare.arms import AS_IT_IS, Arm, Comparison
from cohort.train.directory import run_directory
from cohort.types import UserError

Values = Mapping[str, float]  # of every problem with every seed, its share of right answers


@dataclass(frozen=True, slots=True)
class Result:
    """One arm: held-out accuracy `before` and `after`, their paired `difference`, that of each seed alone, and
    `behind`: the recipe as it is minus this arm, both after training; None for the recipe itself. Tokens are means of
    the held-out completions. `same_start`: it did to every problem before training what the recipe did.
    """

    arm: str
    pays: str
    before: Measure
    after: Measure
    difference: Paired
    by_seed: dict[int, float]
    behind: Paired | None
    tokens_before: float
    tokens_after: float
    seconds: float
    runs: list[Path]
    same_start: bool


@dataclass(frozen=True, slots=True)
class _Measured:
    """The problems of all seeds: before, after, and which of them are one problem."""

    before: Values
    after: Values
    clusters: Mapping[str, Hashable] | None
    tokens: tuple[float, float]
    by_seed: dict[int, float]


def results(compared: Comparison) -> tuple[str, list[Result]]:
    """What was measured, `greedy` or `sampled`, and every arm. Raises `UserError` where an evaluation is missing."""
    stage = compared.stage
    kind, margin = "greedy" if stage.evaluate.greedy else "sampled", stage.evaluate.margin
    measured = {arm.label: _measured(arm, stage, kind, compared.seeds) for arm in compared.arms}
    own = measured[AS_IT_IS]
    behind = {
        label: paired(own.after, one.after, margin, own.clusters)
        for label, one in measured.items()
        if label != AS_IT_IS
    }
    behind = among(behind)
    differences = {label: paired(one.after, one.before, margin, one.clusters) for label, one in measured.items()}
    differences |= among({label: one for label, one in differences.items() if label != AS_IT_IS})
    found = []
    for arm in compared.arms:
        one, runs = measured[arm.label], [run_directory(recipe) for recipe in arm.recipes]
        names = None if one.clusters is None else [one.clusters[problem] for problem in one.after]
        found.append(
            Result(
                arm=arm.label,
                pays=arm.says,
                before=Measure.of(list(one.before.values()), names),
                after=Measure.of(list(one.after.values()), names),
                difference=differences[arm.label],
                by_seed=one.by_seed,
                behind=behind.get(arm.label),
                tokens_before=one.tokens[0],
                tokens_after=one.tokens[1],
                seconds=math.fsum(line.get("time/step_s") or 0.0 for run in runs for line in _steps(run)),
                runs=runs,
                same_start=one.before == own.before,
            )
        )
    return kind, found


def conclusion(found: Sequence[Result]) -> str:
    """In a sentence, how much of what the recipe gains its controls gain as well."""
    own = next(one for one in found if one.behind is None)
    controls = sorted((one for one in found if one.behind is not None), key=lambda one: -one.difference.mean)
    said = "; ".join(f"{one.arm} {_points(one)}" for one in controls)
    if own.difference.verdict != "improved":
        return f"the recipe changes by {_points(own)} points ({own.difference.verdict}): no gain to explain; {said}"
    gain, best = f"the recipe gains {_points(own)} points; {said}", controls[0]
    if best.difference.verdict != "improved":
        return f"{gain}: no control gains for certain"
    share = best.difference.mean / own.difference.mean
    part = "all" if share >= 1 else f"{share:.0%}"
    return f"{gain}: {part} of the gain needs no right answers ({best.arm})"


def _points(one: Result) -> str:
    return f"{100 * one.difference.mean:+.1f}"


def _measured(arm: Arm, stage: Stage, kind: str, seeds: Sequence[int]) -> _Measured:
    """An arm by its evaluations before the first step and after the last one. With several seeds a problem is one
    cluster: the same problem under another seed is no new problem.
    """
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    clusters: dict[str, Hashable] = {}
    by_seed, tokens = {}, [[0, 0], [0, 0]]
    for seed, recipe in zip(seeds, arm.recipes, strict=True):
        log, lengths = run_directory(recipe) / "log", iter(tokens)
        pair = [_evaluated(log / f"eval-{step:06d}-{kind}.parquet", stage, kind) for step in (0, stage.run.steps)]
        for one in pair:
            of = next(lengths)
            of[0] += sum(rollout.mask.count(True) for group in one.groups for rollout in group.rollouts)
            of[1] += sum(len(group.rollouts) for group in one.groups)
        first, last = pair[0].per_problem, pair[1].per_problem
        both, together = [problem for problem in first if problem in last], pair[1].clusters or {}
        if not both:
            raise UserError(f"{log}: no held-out problem was scored both before and after training")
        by_seed[seed] = math.fsum(last[problem] - first[problem] for problem in both) / len(both)
        for problem in both:
            key = f"{seed}/{problem}"
            before[key], after[key], clusters[key] = first[problem], last[problem], together.get(problem, problem)
    alone = len(seeds) == 1 and stage.evaluate.cluster is None
    lengths_of = (tokens[0][0] / tokens[0][1], tokens[1][0] / tokens[1][1])
    return _Measured(before, after, None if alone else clusters, lengths_of, by_seed)


def _evaluated(file: Path, stage: Stage, kind: str) -> Accuracy:
    if not file.exists():
        raise UserError(f"{file} is missing: the held-out completions of this run are lost, so it cannot be compared")
    groups = tuple(read_groups(file))
    return Accuracy(kind, max(len(group.rollouts) for group in groups), groups, stage.evaluate.cluster)


def _steps(run: Path) -> list[dict[str, float]]:
    return read_metrics(run / "metrics.jsonl")
