"""`cohort train --dry-run`: what a run would do, where its parts would go and how long a step would take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cohort.backends.cluster.door import nodes_of
from cohort.backends.cluster.simulate import Work, overlapped, play, times_of
from cohort.commands.check import start_policies
from cohort.recipe import Recipe
from cohort.recipe.loader import of_run
from cohort.record.metrics import read_metrics
from cohort.settings import SAMPLED, Stage
from cohort.train.directory import has_begun, refuse_existing, run_directory, stage_directory
from cohort.train.fork import open_fork
from cohort.types import UserError
from cohort.views.console import Console, escape
from cohort.views.plan import about, placement
from cohort.wording import counted


@dataclass(frozen=True, slots=True)
class Expected:
    """How long a step takes: in the run that was measured, and as the stage is; `how` says where that comes from."""

    run: Path
    measured_s: float
    step_s: float
    how: str


@dataclass(frozen=True, slots=True)
class DryStage:
    """What a stage would do. `expected` is None where no run says how long its steps take."""

    stage: str
    kind: str
    plan: dict[str, str]
    placement: str
    steps: int
    expected: Expected | None


def dry_run(
    recipe: Recipe, console: Console, *, resume: bool = False, fork: str | None = None, measured: Path | None = None
) -> list[DryStage]:
    """Prepare every stage, load its model, join its cluster, and train nothing. Raises `UserError` for whatever the run
    would stop at before its first step.
    """
    directory = run_directory(recipe)
    if has_begun(directory):
        refuse_existing(directory, recipe, resume)
    if fork is not None:
        open_fork(fork, recipe, console)
    known = [measured] if measured is not None else [*_runs_like(recipe, directory)]
    found = []
    for one, policy in start_policies(recipe):
        stage, facts = one.stage, policy.facts()
        plan = {**one.kind.plan(stage, one.prepared, facts), **about(stage, stage.suite, facts.device)}
        expected = next(filter(None, (_expected(stage, run) for run in known)), None)
        if measured is not None and expected is None:
            console.warn(f"{measured} says nothing of how long a step of stage '{stage.name}' takes")
        found.append(DryStage(stage.name, stage.kind, plan, _placement(stage), stage.run.steps, expected))
        _say(console, found[-1])
    console.say("\nnothing was trained and nothing written (--dry-run)")
    return found


def _placement(stage: Stage) -> str:
    """Where the parts of a stage would be. Raises `UserError` where the cluster is not there, or too small."""
    if not stage.clustered:
        return "all in this process" + (f", rewards in {counted(stage.run.workers, 'worker')}" if stage.reward else "")
    there = [f"{name} ({cpus:g} CPUs, {gpus:g} GPUs)" for name, cpus, gpus in nodes_of(stage.cluster)]
    parts = placement(stage.cluster)["cluster"]
    return f"{parts}; on {counted(len(there), 'node')}: {', '.join(there)}; loop and record in this process"


def _runs_like(recipe: Recipe, directory: Path) -> Iterator[Path]:
    """Runs of the same policy beside this one, the newest first; the run itself before all."""
    beside = [file.parent for file in directory.parent.glob("*/recipe.toml")]
    for run in sorted(beside, key=lambda one: (one == directory, (one / "recipe.toml").stat().st_mtime), reverse=True):
        try:
            other = Recipe.load(run / "recipe.toml")
        except UserError:  # a run of another version, or a damaged one: it is no measure of this one
            continue
        if [one.policy for one in other.stages] == [one.policy for one in recipe.stages]:
            yield run


def _expected(stage: Stage, run: Path) -> Expected | None:
    """What a run says of the stage of this name, or kind; None where it has no steps of such."""
    other = Recipe.load(of_run(run)).placed(run)
    alike = [at for at, one in enumerate(other.stages) if one.kind == stage.kind]
    at = next((at for at in alike if other.stages[at].name == stage.name), alike[-1] if alike else None)
    if at is None:
        return None
    where, table = stage_directory(other, at), stage.rollout
    if stage.kind in SAMPLED and not overlapped(other.stages[at]):
        try:
            times = times_of(where, other.stages[at].rollout.max_rows)
        except (UserError, OSError):  # too short, without rollouts, or of a kind that has no such times
            return None
        times = replace(times, lengths=tuple(min(one, table.max_tokens) for one in times.lengths))
        on, here = stage.cluster, stage.clustered
        work = Work(
            table.prompts_per_step, table.group_size, table.max_rows, table.max_staleness if overlapped(stage) else 0
        )
        found = play(times, work, on.learners if here else 1, on.samplers if here else 1)
        parts = (
            f"on {counted(on.learners, 'learner')} and {counted(on.samplers, 'sampler')}" if here else "in one process"
        )
        return Expected(run, times.measured_s, found.step_s, f"simulated {parts}, one processor each, with its times")
    file = where / "metrics.jsonl"
    took = [line["time/step_s"] for line in (read_metrics(file) if file.is_file() else ()) if line.get("time/step_s")]
    if not took:
        return None
    mean = math.fsum(took) / len(took)
    return Expected(run, mean, mean, "as it was there")


def _say(console: Console, found: DryStage) -> None:
    console.say(f"\n[bold]stage {escape(found.stage)}[/] ({found.kind})")
    time = "not known: no run with the same policy has been measured here; name one with --measured RUN"
    if (one := found.expected) is not None:
        time = (
            f"{one.step_s:.3g} s a step, {one.step_s * found.steps / 3600:.3g} h for {counted(found.steps, 'step')} "
            f"without evaluations; {one.how}; a step of {one.run} took {one.measured_s:.3g} s"
        )
    console.lines({**found.plan, "placement": found.placement, "time": time})
