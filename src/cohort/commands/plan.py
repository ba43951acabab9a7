"""`cohort plan`: what a run would take on more GPUs, simulated with the times of one that was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.markup import escape

from cohort.backends.cluster.simulate import Played, Times, Work, best, knee, overlapped, play, times_of
from cohort.recipe import Recipe
from cohort.types import UserError
from cohort.views.console import Console
from cohort.wording import counted


@dataclass(frozen=True, slots=True)
class Planned:
    """Plans for numbers of GPUs; `simulated_s` is a step of the measured run in the simulation, on one of each."""

    run: Path
    steps: int
    times: Times
    simulated_s: float
    plans: tuple[Played, ...]
    knee: Played
    cheapest: Played | None  # that is ready in time


def plan_run(
    run: Path,
    gpus: Sequence[int],
    *,
    staleness: int | None,
    speed: float,
    larger: float,
    hours: float | None,
    failures_h: float,
) -> Planned:
    """`speed`: how many times as fast one GPU is as what the run was measured on; `larger`: how many times as large the
    model. Raises `UserError`.
    """
    if not (run / "recipe.toml").is_file():
        raise UserError(f"{run} is no run: it has no recipe.toml, and a plan needs the times of a run")
    stage = Recipe.load(run / "recipe.toml").stages[-1]
    if overlapped(stage):
        raise UserError(
            f"the steps of {run} sampled while they learnt (rollout.max_staleness > 0), and their "
            "times do not say which of the two took what: measure a run with max_staleness = 0"
        )
    measured = times_of(run, stage.rollout.max_rows)
    scale = larger / speed
    times = replace(
        measured,
        iteration_s=measured.iteration_s * scale,
        row_s=measured.row_s * scale,
        token_s=measured.token_s * scale,
        step_s=measured.step_s * scale,
    )
    files = sum(file.stat().st_size for file in (run / "final").glob("*.safetensors")) / 1e9 * larger
    r = stage.rollout
    work = Work(
        r.prompts_per_step,
        r.group_size,
        r.max_rows,
        r.max_staleness if staleness is None else staleness,
        weights_gb=files,
        gradient_gb=files,
        hours_between_failures=failures_h,
    )
    here = play(measured, Work(r.prompts_per_step, r.group_size, r.max_rows), 1, 1)
    plans = tuple(best(times, work, count) for count in sorted(set(gpus)))
    ready = [one for one in plans if hours is None or one.step_s * stage.run.steps <= hours * 3600]
    cheapest = min(ready, key=lambda one: one.step_s * one.gpus, default=None)
    return Planned(run, stage.run.steps, times, here.step_s, plans, knee(plans), cheapest)


def show(console: Console, found: Planned) -> None:
    """The plans as a table, the knee and the cheapest."""
    apart = abs(found.simulated_s / found.times.measured_s - 1)
    took = f"a step of it took {found.times.measured_s:.2f} s, and {found.simulated_s:.2f} s in the simulation"
    console.say(escape(f"simulated with the times of {found.run}: {took} ({apart:.0%} apart)"))
    rows = [
        [
            f"{one.gpus}",
            f"{one.learners} + {one.samplers}" if one.gpus > 1 else "in turn",
            f"{one.step_s:.3g} s",
            f"{one.step_s * found.steps / 3600:.3g} h",
            f"{one.step_s * found.steps / 3600 * one.gpus:.3g}",
            f"{one.sampling:.0%}",
            f"{one.learning:.0%}",
            f"{one.gb_per_step:.3g} GB",
        ]
        for one in found.plans
    ]
    headings = [
        "GPUs",
        "learners + samplers",
        "step",
        f"{found.steps} steps",
        "GPU hours",
        "sampling",
        "learning",
        "sent",
    ]
    console.table(headings, rows)
    console.say(
        f"  the knee is at {counted(found.knee.gpus, 'GPU')}: twice as many would not make it half as fast again"
    )
    if found.cheapest is None:
        console.say("  no plan is ready in time: allow more GPUs or more hours")
    else:
        console.say(f"  the cheapest that is ready in time has {counted(found.cheapest.gpus, 'GPU')}")
