"""From a recipe to a finished run: the run directory, the stages in order, the final model."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cohort.clock import stopped_at
from cohort.machine import quiet_libraries
from cohort.monitor.watcher import read_incidents
from cohort.policy.load import Start
from cohort.preflight.compiled import refuse_plain
from cohort.preflight.isolation import isolation_of
from cohort.preflight.suites import open_suites
from cohort.recipe import Recipe
from cohort.record.chain import Chain
from cohort.record.claims import read_record
from cohort.record.keys import key_id, own_key
from cohort.record.manifest import damage_of_model, refuse_damaged
from cohort.record.metrics import read_metrics
from cohort.seeds import derive_seed
from cohort.train.checkpoint import latest_step
from cohort.train.choosing import check_choosing, reason_to_stop
from cohort.train.contamination import say_contamination
from cohort.train.directory import (
    as_it_lies,
    disk_errors,
    has_begun,
    is_of_run,
    locked,
    noting_failure,
    refuse_existing,
    refuse_unrecorded,
    run_directory,
    stage_directory,
    write_recipe,
)
from cohort.train.fork import kept_fork, open_fork
from cohort.train.gate import pass_gate, refuse_damaged_findings
from cohort.train.keeping import keep_account
from cohort.train.loop import train_stage
from cohort.train.models import begins_with, data_files, starts_from, with_stage_models, with_stage_policies
from cohort.train.recorder import Recorder
from cohort.train.stage import Context, PreparedStage, kind_of
from cohort.train.unread import as_read, refuse_unread
from cohort.train.watching import check_actions
from cohort.types import UserError
from cohort.views.cards.reading import in_a_line, value
from cohort.views.console import Console, escape
from cohort.views.diagnosis import show_findings
from cohort.views.gains import show_gains
from cohort.wording import counted, resuming

__all__ = ["PreparedStage", "Run", "prepare", "train"]


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run."""

    directory: Path

    @property
    def final(self) -> Path:
        """The trained model: a Hugging Face checkpoint."""
        return self.directory / "final"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The steps of the last stage."""
        if not (self.directory / "metrics.jsonl").exists():
            raise UserError(f"{self.directory / 'metrics.jsonl'} is missing: the numbers of the run are lost")
        return read_metrics(self.directory / "metrics.jsonl")


def train(
    recipe: Recipe,
    *,
    resume: bool = False,
    fork: str | None = None,
    console: Console | None = None,
    start: Start | None = None,
) -> Run:
    """Run all stages of a recipe; with `fork`, `RUN@STEP`, those from another run's checkpoint on.

    With `resume` a run that was interrupted goes on, exactly; one that is finished is only shown; one that was never
    begun is begun. `start` has the model object of a recipe whose policy.model is "live".

    Raises `UserError` for everything that a person can mend, most of it before any model loads.
    """
    quiet_libraries()
    console, start = console or Console(), start or Start()
    recipe = as_it_lies(recipe) if resume else recipe
    directory = run_directory(recipe)
    try:
        stages = prepare(recipe)
    except UserError:  # a reward of the notebook that began the run, data that are gone: a run that is over needs none
        if not (resume and has_begun(directory) and _is_over(directory, recipe)):
            raise
        console.say(_over(directory))
        console.saved("model", directory / "final")
        return Run(directory)
    recipe = as_read(recipe)
    if has_begun(directory):
        refuse_existing(directory, recipe, resume)
    elif recipe.file is not None and not resume and is_of_run(recipe.file):
        here = recipe.file.parent
        console.warn(f"{here} is a run, and its recipe begins another one in {directory}; {resuming()} continues it")
    elif resume:
        console.warn(f"there is nothing to resume in {directory}: this run begins at step 1")
    parent = open_fork(fork, recipe, console).facts if fork is not None else None
    with locked(directory) as still_here, disk_errors(directory, still_here):
        if not has_begun(directory):
            pass_gate(directory, recipe, stages, console, start)
            say_contamination(directory, stages, console)
        chain = Chain.open(directory, own_key(directory), console.warn, anew=not has_begun(directory))
        sampled = [(one.stage, one.prepared.parts) for one in stages if one.prepared.parts is not None]
        threads, began = write_recipe(chain, recipe, console, isolation_of(sampled), parent)
        begins = kept_fork(directory)
        with deterministic(threads), stopped_at(began[:10]), _repeating_findings(recipe, console):
            refuse_damaged_findings(directory)
            trained = False
            for index, one in enumerate(stages):
                if begins is not None and index < begins.index:  # its parent has done it
                    continue
                before = begins_with(recipe, index)
                name, own = one.stage.name, stage_directory(recipe, index)
                place = f": stage {index + 1} of {len(stages)}, {name}" if len(stages) > 1 else ""
                context = Context(
                    recipe=recipe,
                    stage=with_stage_policies(recipe, index, one.stage),
                    title=recipe.name + place,
                    seed=one.seed,
                    directory=own,
                    console=console,
                    start=_start(recipe, before, start),
                    recorder=Recorder(chain, own),
                    follows="" if before is None else stages[before].stage.name,
                    suites=one.suites,
                    check=still_here,
                )
                if begins is not None and index == begins.index:
                    context = begins.taken_up(context)
                if not _is_finished(context):
                    refuse_unrecorded(chain)
                    one = _with_its_data(recipe, index, one)
                    with noting_failure(chain, name, still_here):
                        train_stage(one.kind, one.prepared, context)
                    trained = True
        if resume and not trained:
            console.say(_over(directory))
        still_here()
        record = None if trained else read_record(directory)
        record = record or keep_account(directory, recipe)  # cards of a run that is only shown may have been edited
    _show_result(directory, stages[-1], record, chain, console)
    _repeat_findings(recipe, console)
    return Run(directory)


def prepare(recipe: Recipe) -> list[PreparedStage]:
    """Everything of every stage that can be opened and checked before a model loads. Raises `UserError`."""
    first = recipe.stages[0].policy
    mend = "set policy.model to a checkpoint directory or a hub id, or give policy.scratch"
    if first.model is None and first.scratch is None:
        raise UserError(f"the recipe names no model: {mend}")
    found = []
    refuse_unread(recipe)
    recipe = as_read(recipe)
    for index, stage in enumerate(recipe.stages):
        kind, seed = kind_of(stage), derive_seed(recipe.seed, "stage", index)
        ready = with_stage_models(recipe, index)
        check_actions(ready, kind)
        with_stage_policies(recipe, index, stage)  # which refuses a name that is not there
        suites = open_suites(ready, seed) if stage.suite and kind.makes_policy else ()
        if begins_with(recipe, index) is None and stage.policy.model is None and stage.policy.scratch is None:
            raise UserError(f"stage '{stage.name}' names no model, and no stage before it leaves one: {mend}")
        refuse_plain(ready, starts_from(recipe, index))
        prepared = kind.prepare(ready, seed)
        if stage.run.keep_best is not None or stage.run.stop is not None:
            check_choosing(ready, prepared)
        found.append(PreparedStage(stage.with_(policy=ready.policy), kind, seed, prepared, suites))
    return found


def _start(recipe: Recipe, before: int | None, given: Start) -> Start:
    """Where the weights of a stage come from that names no model: the stage before it of that number."""
    return given if before is None else Start(str(stage_directory(recipe, before) / "final"), given.live)


def _with_its_data(recipe: Recipe, index: int, one: PreparedStage) -> PreparedStage:
    """The stage with the data that a stage before it has made, where it learns from such: until then it was checked
    with rows in their place.
    """
    if not (files := data_files(recipe, index)):
        return one
    if gone := next((file for file in files if not file.is_file()), None):
        raise UserError(f"the data of stage '{one.stage.name}' are gone: {gone} is missing")
    if one.prepared.parts is not None:
        one.prepared.parts.world.close()
    return replace(one, prepared=one.kind.prepare(with_stage_models(recipe, index), one.seed))


def _repeat_findings(recipe: Recipe, console: Console) -> None:
    """What detectors have found in every stage, again: it may have scrolled away."""
    for index, stage in enumerate(recipe.stages):
        show_findings(console, read_incidents(stage_directory(recipe, index)), stage)


@contextlib.contextmanager
def _repeating_findings(recipe: Recipe, console: Console) -> Iterator[None]:
    """Around what trains: they are said again where the run is paused, or fails."""
    try:
        yield
    except UserError:
        with contextlib.suppress(OSError, UserError):  # what has failed is said all the same
            _repeat_findings(recipe, console)
        raise


def _is_over(directory: Path, recipe: Recipe) -> bool:
    """Whether the run has its final model, whole, and all the steps that its recipe asks for."""
    refuse_existing(directory, recipe, resume=True)
    metrics, final = directory / "metrics.jsonl", directory / "final"
    steps = [line["step"] for line in read_metrics(metrics)] if metrics.exists() else []
    return final.exists() and damage_of_model(final) is None and max(steps, default=-1) >= recipe.stages[-1].run.steps


def _over(directory: Path) -> str:
    return f"{escape(str(directory))} is finished already: there is nothing to go on with"


def _is_finished(context: Context) -> bool:
    """Whether the stage has its final model, whole, and no more steps were asked for since."""
    last, final = latest_step(context.checkpoints), context.final
    if not final.exists() or (last is not None and last < context.stage.run.steps and not _has_stopped(context)):
        return False
    if last is None:  # nothing is left to write it again from
        refuse_damaged(final)
    elif (problem := damage_of_model(final)) is not None:
        context.console.warn(f"{final} is damaged ({problem}); it is written again from the checkpoint of step {last}")
        return False
    return True


def _has_stopped(context: Context) -> bool:
    """Whether the stage ended early, as `run.stop` says."""
    return context.metrics.exists() and bool(reason_to_stop(read_metrics(context.metrics), context.stage.run))


@contextlib.contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Every sum in a fixed order, as bit-exact resume needs it, and nothing that the caller has set for torch changes a
    number; torch's settings are the caller's again afterwards.
    """
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)
    if device.type != "cpu":
        torch.set_default_device(None)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for cuBLAS, which reads it when it starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing here reads memory that it has not written, so torch need not fill it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        with torch.inference_mode(False), torch.enable_grad(), ExitStack() as stack:
            for kind in ("cpu", "cuda"):
                stack.enter_context(torch.autocast(kind, enabled=False, cache_enabled=False))
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        torch.set_default_dtype(dtype)
        if device.type != "cpu":
            torch.set_default_device(device)


def _show_result(directory: Path, last: PreparedStage, record: dict[str, Any], chain: Chain, console: Console) -> None:
    """Before and after, and where everything is."""
    metrics = directory / "metrics.jsonl"
    lines = read_metrics(metrics) if metrics.exists() else []
    labels = {line["step"]: "after" for line in lines[-1:]} | {0: "before"}
    if chosen := (value(record["stages"][-1], "behaviour.performance") or {}).get("chosen"):
        labels[chosen["step"]] = f"step {chosen['step']}, kept"
    parts = last.prepared.parts
    rows = [(labels.get(line["step"], f"step {line['step']}"), line) for line in lines]
    console.evaluations(rows, parts.verifier_name if parts else "")
    show_gains(console, record)
    unaided = (line for line in lines if "teacher/kl" not in line)
    signal = [line["groups/signal"] for line in unaided if line.get("groups/signal") is not None]
    if signal and not any(signal) and not read_incidents(directory):  # a run too short for detectors
        console.warn(
            f"in none of {counted(len(signal), 'step')} did the rewards of a group differ: nothing was learnt from them"
        )
    console.saved("model", directory / "final")
    console.saved("metrics", metrics)
    if any((directory / "log").glob("*.parquet")):
        console.saved("rollouts", directory / "log")
    console.saved("record", directory / "record.json")
    console.lines({f"{'':<11}": in_a_line(record)})
    if chain.size:
        by = "not signed" if chain.key is None else f"signed by {key_id(chain.key.public)[:16]}"
        console.lines({f"{'log':<11}": f"{counted(chain.size, 'entry', 'entries')}, {by}"})
