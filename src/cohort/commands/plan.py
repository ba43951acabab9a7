"""`cohort plan`: what a run would take on more GPUs, simulated with the times of one that was measured."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cohort.backends.cluster.simulate import Played, Times, Work, best, knee, overlapped, play, times_of
from cohort.preflight.memory import average_bytes
from cohort.recipe import Recipe
from cohort.recipe.loader import of_run
from cohort.settings import Stage
from cohort.types import UserError
from cohort.views.console import Console, escape
from cohort.wording import counted, magnitude, one_line

MOST = 10_000_000  # completions of a step that are played through
ROOM = 0.8  # of a GPU's memory for what stays there; the rest is for activations, keys and values


@dataclass(frozen=True, slots=True)
class Planned:
    """Plans for numbers of GPUs; `simulated_s` is a step of the measured run in the simulation, on one of each. `least`
    learners are needed for what a model of so many parameters trains with; what has fewer GPUs is `too_few`. `saving`:
    its [optimizer] has keys that save memory, which several learners cannot have.
    """

    run: Path
    parameters: int
    least: int
    saving: bool
    too_few: tuple[int, ...]
    steps: int
    times: Times
    simulated_s: float
    plans: tuple[Played, ...]
    knee: Played
    cheapest: Played | None  # that is ready in time


def plan_run(
    run: Path | None,
    gpus: Sequence[int],
    staleness: int | None,
    speed: float,
    larger: float | None,
    hours: float | None,
    failures_h: float,
    model: str | None = None,
    gpu_gb: float = 80.0,
    network: float = 10.0,
    prompts: int | None = None,
    group_size: int | None = None,
    tokens: float | None = None,
) -> Planned:
    """`speed`: how many times as fast one GPU is as what the run was measured on; `larger`: how many times as large the
    model, or `model`: which it is, by its size (8B) or its checkpoint. A step has the run's prompts and completions,
    where nothing else is said; `tokens` are those of a completion in the mean. Without a run, the newest one in runs/
    is taken that says something. Raises `UserError`.
    """
    run = _newest() if run is None else run
    stage = Recipe.load(of_run(run)).stages[-1]
    if overlapped(stage):
        raise UserError(
            f"the steps of {run} sampled while they learnt (rollout.max_staleness > 0), and their "
            "times do not say which of the two took what: measure a run with max_staleness = 0"
        )
    measured = times_of(run, stage.rollout.max_rows)
    own, own_trained = _policy_of(run, stage)
    larger = (larger or 1.0) if model is None else parameters_of(model) / own
    parameters, trained, scale = round(own * larger), own_trained * larger, larger / speed
    longer = 1.0 if tokens is None else tokens / (sum(measured.lengths) / len(measured.lengths))
    times = replace(
        measured,
        lengths=tuple(max(1, round(length * longer)) for length in measured.lengths),
        iteration_s=measured.iteration_s * scale,
        row_s=measured.row_s * scale,
        token_s=measured.token_s * scale,
        step_s=measured.step_s * scale,
    )
    r, each = stage.rollout, 4 if stage.policy.dtype == "float32" else 2  # bytes of a weight
    sent = trained * each / 1e9  # an adapter's, where that is trained
    work = Work(
        prompts or r.prompts_per_step,
        group_size or r.group_size,
        r.max_rows,
        r.max_staleness if staleness is None else staleness,
        weights_gb=sent,
        gradient_gb=sent,
        gb_per_s=network,
        hours_between_failures=failures_h,
    )
    # Of each parameter a learner has a weight, and of each that is trained a gradient and Adam's two averages; those
    # of several learners are in the type of the weights.
    held, room = (parameters + 3 * trained) * each / 1e9, ROOM * gpu_gb
    alone = ((parameters + trained) * each + trained * average_bytes(stage.optimizer, each, "cuda")) / 1e9
    least = 1 if alone <= room else max(2, math.ceil(held / room))
    if parameters * each / 1e9 > room:
        raise UserError(
            f"a sampler has all weights, {parameters * each / 1e9:.0f} GB of {stage.policy.dtype}, and {ROOM:.0%} of a "
            f'GPU of {gpu_gb:g} GB are {room:.0f}: set policy.dtype = "bfloat16", or name a larger GPU (--gpu-gb)'
        )
    if work.prompts * work.group_size > MOST:
        raise UserError(
            f"a step of {work.prompts:,} prompts x {work.group_size:,} completions is more than can be played through "
            f"({MOST:,}): lower --prompts or --group-size"
        )
    here = play(measured, Work(r.prompts_per_step, r.group_size, r.max_rows), 1, 1)
    wanted = sorted(set(gpus))
    enough = [count for count in wanted if count > least or least == 1]
    if not enough:
        raise UserError(
            f"{counted(wanted[-1], 'GPU')} of {gpu_gb:g} GB cannot train {magnitude(parameters)} parameters: weights, "
            f"gradients and averages are {held:.0f} GB, for which {counted(least, 'learner')} and a sampler are needed"
        )
    plans = tuple(best(times, work, count, least) for count in enough)
    ready = [one for one in plans if hours is None or one.step_s * stage.run.steps <= hours * 3600]
    cheapest = min(ready, key=lambda one: one.step_s * one.gpus, default=None)
    few = tuple(count for count in wanted if count not in enough)
    return Planned(
        run,
        parameters,
        least,
        stage.optimizer.saves_memory,
        few,
        stage.run.steps,
        times,
        here.step_s,
        plans,
        knee(plans),
        cheapest,
    )


def _newest() -> Path:
    """The newest run beside this directory whose steps say what they took."""
    for file in sorted(Path("runs").glob("*/metrics.jsonl"), key=lambda one: one.stat().st_mtime, reverse=True):
        try:
            times_of(file.parent, 1)
        except (UserError, OSError):
            continue
        return file.parent
    raise UserError("no run in runs/ says how long a step takes: name one, or train one with the recipe to be planned")


def _policy_of(run: Path, stage: Stage) -> tuple[int, int]:
    """The parameters of the model that a run trained, and how many of them it trained."""
    try:
        said = json.loads((run / "environment.json").read_text("utf-8"))["policies"][stage.name]
        return int(said["parameters"]), int(said["trained"])
    except (OSError, ValueError, KeyError):
        raise UserError(f"{run / 'environment.json'} does not say how large the model of the run is") from None


def parameters_of(model: str) -> int:
    """The parameters of a model, named by its size (8B, 0.5B, 135M) or by a directory with its config.json."""
    if (size := re.fullmatch(r"(\d+(?:\.\d+)?)([MBT])", model.strip().upper())) is not None:
        count = round(float(size[1]) * {"M": 1e6, "B": 1e9, "T": 1e12}[size[2]])
        if not 1 <= count <= 1e15:
            raise UserError(f"--model {model} is the size of no model: name one such as 0.5B or 8B")
        return count
    if not Path(model, "config.json").is_file():
        raise UserError(f"{model} is neither the size of a model, such as 8B, nor a directory with its config.json")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            made = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    except Exception as error:  # whatever a config that is not one makes the library raise
        raise UserError(f"{model} has no config.json of a causal language model: {one_line(error)}") from None
    return int(made.num_parameters())


def show(console: Console, found: Planned) -> None:
    """The plans as a table, the knee and the cheapest."""
    apart = abs(found.simulated_s / found.times.measured_s - 1)
    took = f"a step of it took {found.times.measured_s:.2f} s, and {found.simulated_s:.2f} s in the simulation"
    console.say(escape(f"simulated with the times of {found.run}: {took} ({apart:.0%} apart)"))
    sharded = f", which {counted(found.least, 'learner')} hold together" if found.least > 1 else ""
    console.say(f"{magnitude(found.parameters)} parameters{sharded}")
    if found.too_few:
        console.say(f"  too few for that: {', '.join(map(str, found.too_few))} GPUs")
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
    if found.saving and any(one.learners > 1 for one in found.plans):
        console.say(
            "  several learners cannot have optimizer.state, offload or stochastic_rounding: leave them out there"
        )
    console.say(
        f"  the knee is at {counted(found.knee.gpus, 'GPU')}: twice as many would not make it half as fast again"
    )
    if found.cheapest is None:
        console.say("  no plan is ready in time: allow more GPUs or more hours")
    else:
        console.say(f"  the cheapest that is ready in time has {counted(found.cheapest.gpus, 'GPU')}")
