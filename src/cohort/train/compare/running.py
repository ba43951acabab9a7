"""The runs of a comparison: each a process of its own, so that its memory is its own; several at a time on request.

What is finished is only looked at, what was interrupted goes on. An arm with a budget stops when it has used what the
first arm used, by `run.stop` on the numbers of its own record: a run that was killed stops where it would have.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from cohort.machine import threads_of
from cohort.preflight.memory import available_gb
from cohort.recipe import Recipe
from cohort.record.files import write_bytes
from cohort.record.metrics import read_metrics
from cohort.settings import Stop
from cohort.train.compare.arms import BEFORE, Arm, Comparison, with_run
from cohort.train.directory import as_kept, changes, has_begun, run_directory
from cohort.train.inputs import FAILED
from cohort.train.run import train
from cohort.types import UserError
from cohort.views.console import Console, escape
from cohort.views.plan import SHOWN
from cohort.wording import another

OF_BUDGET = {"tokens": "tokens/sampled", "seconds": "time/step_s"}  # what is added up over the steps
LONGEST = 1000  # times the steps of the first arm: no arm with a budget goes on for ever
DIVERGED = "not finite"  # in what a run says that has lost its numbers
POLL_S = 0.2
PAUSED = 3  # exit code of a run that a detector has paused


class Process(Protocol):
    """What is asked of a run that is under way; `subprocess.Popen` has it."""

    def poll(self) -> int | None:
        """Its exit code, once it has one."""

    def terminate(self) -> None:
        """Ask it to stop."""

    def wait(self) -> int:
        """Wait for its end."""


def launch(file: Path, resume: bool, output: Any, environment: dict[str, str]) -> Process:
    """Begin a run, or go on with it, in a process of its own."""
    words = [sys.executable, "-m", "cohort", "train", str(file), *(["--resume"] if resume else [])]
    return subprocess.Popen(words, stdout=output, stderr=None if output is None else subprocess.STDOUT, env=environment)


def train_arms(compared: Comparison, console: Console, jobs: int = 1) -> None:
    """Train what is not trained yet. Raises `UserError` where the directory has another comparison, or a run fails for
    another reason than numbers that are no longer finite, which is a result.
    """
    directory, kept = compared.directory, compared.directory / "recipe.toml"
    if kept.exists() and (listed := changes(kept, compared.recipe)):
        raise UserError(
            f"{directory} compares another recipe: {'; '.join(listed[:5])}. Restore the recipe, or begin another "
            f"comparison with {another()}."
        )
    if jobs > 1 and compared.budget == "seconds":
        raise UserError("--budget seconds takes --jobs 1: runs beside each other slow each other down")
    directory.mkdir(parents=True, exist_ok=True)
    write_bytes(kept, as_kept(compared.recipe).encode())
    runs = _Runs(compared, console, jobs)
    if compared.before is not None:
        runs.all([(BEFORE, "the stages before it, once for all", compared.before)], 1)
    base, others = compared.base, compared.arms[1:]
    runs.all([(base.label, base.says, base.recipes[0])], 1)
    jobs = _fitting(jobs, base.recipes[0], console)
    first = [(base.label, base.says, recipe) for recipe in base.recipes[1:]]
    rest = [(arm, number) for arm in others for number in range(len(compared.seeds))]
    if compared.budget != "steps":
        runs.all(first, jobs)
        first = []
    runs.all([*first, *((arm.label, arm.says, _within_budget(compared, arm, n)) for arm, n in rest)], jobs)


def used(run: Path, budget: str) -> float:
    """What a run has used of a budget by now."""
    return math.fsum(line.get(OF_BUDGET[budget]) or 0.0 for line in read_metrics(run / "metrics.jsonl"))


def diverged(recipe: Recipe) -> str | None:
    """What a run said when its numbers were no longer finite; None for any other."""
    note = run_directory(recipe) / FAILED
    said = note.read_text("utf-8").strip() if note.exists() else ""
    return said if DIVERGED in said else None


def _within_budget(compared: Comparison, arm: Arm, number: int) -> Recipe:
    """The recipe of an arm that stops when it has used what the first arm used with the same seed."""
    if compared.budget == "steps":
        return arm.recipes[number]
    total = used(run_directory(compared.base.recipes[number]), compared.budget)
    if not total:
        raise UserError(f"{compared.base.label} has used no {compared.budget}, so there is no budget for the others")
    steps = arm.recipes[number].stages[-1].run.steps * LONGEST
    return with_run(arm.recipes[number], steps=steps, stop=Stop(metric=OF_BUDGET[compared.budget], total=total))


def _fitting(jobs: int, first: Recipe, console: Console) -> int:
    """How many runs fit beside each other, by what the first one needed."""
    if jobs == 1:
        return 1
    lines = read_metrics(run_directory(first) / "metrics.jsonl")
    needed = max((line.get("memory/peak_gb") or 0.0 for line in lines), default=0.0)
    free = available_gb()
    fit = max(1, min(jobs, math.floor(free / needed) if needed else 1))
    if fit < jobs:
        console.warn(f"{fit} at a time and not {jobs}: the first run needed {needed:.1f} GB; {free:.1f} GB are free")
    return fit


class _Runs:
    """Begins runs, and waits for them."""

    def __init__(self, compared: Comparison, console: Console, jobs: int):
        self._directory, self._console = compared.directory, console
        arms = sum(len(arm.recipes) for arm in compared.arms)
        self._number, self._total = 0, arms + (compared.before is not None)
        self._environment = dict(os.environ)
        if jobs == 1:
            shown = compared.directory / "recipes" / "shown.json"
            shown.unlink(missing_ok=True)
            self._environment[SHOWN] = str(shown)
        if jobs > 1:  # all runs have as many threads as they have beside each other
            self._environment["OMP_NUM_THREADS"] = str(max(1, threads_of("auto") // jobs))

    def all(self, runs: Sequence[tuple[str, str, Recipe]], jobs: int) -> None:
        """Run them, `jobs` at a time; with several their words go into a file beside each."""
        waiting, running = list(runs), dict[Process, tuple[str, Recipe]]()
        with ExitStack() as files:
            try:
                while waiting or running:
                    while waiting and len(running) < jobs:
                        label, says, recipe = waiting.pop(0)
                        if (begun := self._begin(label, says, recipe, jobs, files)) is not None:
                            running[begun] = label, recipe
                    for process in [one for one in running if one.poll() is not None]:
                        self._ended(process.poll() or 0, *running.pop(process))
                    if running:
                        time.sleep(POLL_S)
            except BaseException as reason:  # a failure, or a signal: the others save what they have, and stop
                for process in running:
                    if not isinstance(reason, KeyboardInterrupt):  # which they have heard themselves
                        process.terminate()
                for process in running:
                    process.wait()
                raise

    def _begin(self, label: str, says: str, recipe: Recipe, jobs: int, files: ExitStack) -> Process | None:
        self._number += 1
        run = run_directory(recipe)
        of = f", seed {recipe.seed}" if recipe.name != BEFORE else ""
        self._console.say(f"\n[bold]run {self._number} of {self._total}, {escape(label)}{of}[/]: {escape(says)}")
        if said := diverged(recipe):
            self._console.say(f"  it has ended: {escape(said)}")
            return None
        if (run / "final").exists():
            train(recipe, resume=True, console=self._console)
            return None
        file = self._directory / "recipes" / f"{recipe.name}.toml"
        file.parent.mkdir(exist_ok=True)
        write_bytes(file, as_kept(recipe).encode())
        output = None
        if jobs > 1:
            output = files.enter_context((self._directory / "recipes" / f"{recipe.name}.txt").open("ab"))
            self._console.say(f"  its words are in {escape(output.name)}")
        return launch(file, has_begun(run), output, self._environment)

    def _ended(self, code: int, label: str, recipe: Recipe) -> None:
        if not code:
            return
        if said := diverged(recipe):
            self._console.warn(f"{label}, seed {recipe.seed}, has collapsed: {said}")
            return
        note = run_directory(recipe) / FAILED
        paused = "; a detector has paused it (cohort diagnose)" * (code == PAUSED)
        why = f"it ended with exit code {code}{paused}."
        why = note.read_text("utf-8").strip() if note.exists() else why
        raise UserError(f"the run {recipe.name} failed: {why} Mend that; the same command goes on with the others.")
