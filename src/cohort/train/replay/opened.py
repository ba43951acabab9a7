"""A stage of a run that was recorded, one that samples groups: its recipe, its files, and what it was trained with."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cohort.algorithms.objectives import Objective
from cohort.backends.base import Origin
from cohort.clock import stopped_at
from cohort.machine import describe_machine
from cohort.monitor.detectors.finding import Finding
from cohort.monitor.watcher import read_incidents
from cohort.policy.load import Start
from cohort.preflight.objective import settled_objective
from cohort.preflight.suites import as_stage
from cohort.recipe import Recipe
from cohort.record.metrics import read_metrics
from cohort.rewards import Combination, Gate
from cohort.seeds import derive_seed
from cohort.settings import GROUPS, SAMPLED, Stage
from cohort.train.checkpoint import Checkpoint, checkpoints_in, read_checkpoint
from cohort.train.directory import read_environment, recipe_in, stage_directory
from cohort.train.models import begins_with, with_stage_models, with_stage_policies
from cohort.train.replay.stored import StoredStep, read_step
from cohort.train.run import deterministic
from cohort.train.stage import kind_of
from cohort.train.watching import adapted
from cohort.types import UnreadableError, UserError


@dataclass(frozen=True, slots=True)
class Recorded:
    """One stage of a run that samples groups, or a suite of it, of which there are answers alone. `title` is its name
    with a colon where the run has several such stages.
    """

    run: Path
    recipe: Recipe
    index: int
    stage: Stage
    title: str
    environment: Mapping[str, Any]
    objective: Objective
    combination: Combination
    only: frozenset[int] | None = field(default=None)  # the steps to look at; None: all that are stored
    suite: str = ""

    @property
    def directory(self) -> Path:
        """The stage's own."""
        return stage_directory(self.recipe, self.index)

    @property
    def seed(self) -> int:
        """The stage's own."""
        return derive_seed(self.recipe.seed, "stage", self.index)

    @property
    def steps(self) -> dict[int, Path]:
        """The files of rollouts by step, in order."""
        found = {
            int(m[1]): f
            for f in (self.directory / "log").glob("*")
            if (m := re.fullmatch(r"step-(\d+)\.parquet", f.name))
        }
        return {step: found[step] for step in sorted(found) if self.only is None or step in self.only}

    def read(self, step: int) -> StoredStep:
        """The rollouts of a step. Raises `UserError` where they are not there, damaged, or none of this stage."""
        file = self.directory / "log" / f"step-{step:06d}.parquet"
        if not file.is_file():
            raise UserError(f"the rollouts of step {step} are not there: {file} is missing")
        found = read_step(file, step, range(step - 1 - self.stage.rollout.oldest, step))
        return self._fitting(found, list(self.combination.weights), self.stage.rollout.group_size)

    @property
    def evaluations(self) -> list[tuple[int, str, Path]]:
        """After which step problems were asked, greedy or sampled, and the file of what was answered."""
        of = re.escape(f"{self.suite}-") if self.suite else ""
        files = sorted((self.directory / "log").glob("eval-*.parquet")) if self.only is None else []
        named = ((re.fullmatch(rf"eval-(\d+)-{of}(greedy|sampled)\.parquet", file.name), file) for file in files)
        return [(int(m[1]), m[2], file) for m, file in named if m]

    @property
    def suites(self) -> list[Recorded]:
        """Its suites, each as a stage that has it as its held-out problems."""
        return [
            replace(self, stage=as_stage(table, self.stage), suite=table.name, title=f"{self.title}{table.name}: ")
            for table in self.stage.suite
        ]

    def read_evaluation(self, step: int, kind: str, file: Path, names: list[str]) -> StoredStep:
        """The completions of an evaluation, each scored by the rewards `names`. Raises `UserError` as `read` does."""
        samples = 1 if kind == "greedy" else self.stage.evaluate.samples
        return self._fitting(read_step(file, step, range(step, step + 1)), names, samples)

    def _fitting(self, found: StoredStep, names: list[str], size: int) -> StoredStep:
        for group in found.groups:
            place = found.place(group.ticket)
            if group.rollouts and len(group.rollouts) != size:
                raise UserError(f"{place} has {len(group.rollouts)} rollouts, and the recipe asks for {size}")
            if list(group.scores) != names and not (group.error is not None and not group.scores):
                has = ", ".join(group.scores) or "nothing"
                raise UserError(f"{place} has scores of {has}, not of {', '.join(names)}")
        return found

    @property
    def findings(self) -> list[Finding]:
        """What detectors have found, and done."""
        return read_incidents(self.directory)

    def at(self, step: int) -> Recorded:
        """The stage with the settings that held in a step, where detectors had changed some."""
        stage = adapted(self.stage, self.findings, step)
        return self if stage == self.stage else replace(self, stage=stage, objective=settled_objective(stage))

    def metrics(self) -> dict[int, dict[str, Any]]:
        """The numbers of every step."""
        file = self.directory / "metrics.jsonl"
        return {line["step"]: line for line in read_metrics(file)} if file.is_file() else {}

    @property
    def checkpoints(self) -> dict[int, Path]:
        """The checkpoints by step, in order."""
        return checkpoints_in(self.directory / "checkpoints")

    def checkpoint(self, step: int) -> Checkpoint | None:
        """The checkpoint of a step; None where there is none, as of step 0. Raises `UserError` for a damaged one."""
        path = self.checkpoints.get(step)
        return None if path is None else read_checkpoint(path)

    def origin(self, checkpoint: Checkpoint | None) -> Origin:
        """Where the weights come from: a checkpoint, or what the stage began with."""

        def texts() -> Iterable[str]:
            return kind_of(self.stage).prepare(self.stage, self.seed).texts()

        return Origin(self.seed, self.start, texts, None if checkpoint is None else checkpoint.path)

    @property
    def start(self) -> Start:
        """What the stages before it left."""
        parent = self.environment.get("parent") or {}
        if parent.get("index") == self.index:
            return Start(parent.get("start"))
        before = begins_with(self.recipe, self.index)
        return Start(None if before is None else str(stage_directory(self.recipe, before) / "final"))

    def other_bits(self, device: str) -> str:
        """Why learning again on this device gives other last bits than the run had; "" where it gives the same."""
        now = describe_machine()
        for key, had in (
            ("processor", "another processor"),
            ("gpu", "other GPUs"),
            ("packages", "other libraries"),
            ("kernels", "another path, with other kernels"),
        ):
            if now[key] != self.environment.get(key):
                return f"the run had {had}"
        if self.stage.learners > 1:
            return "several learners added up its gradients"
        return "" if device == "cpu" else "a GPU adds numbers in an order of its own"

    @contextlib.contextmanager
    def as_it_ran(self) -> Iterator[None]:
        """With the run's number of threads and its date, torch as in training."""
        with deterministic(int(self.environment["threads"])), stopped_at(str(self.environment["began"])[:10]):
            yield


def open_run(run: Path, stage: str = "", kinds: Collection[str] = GROUPS) -> list[Recorded]:
    """The stages of these kinds of a run, or the one of that name. Raises `UnreadableError` for what is no run, or was
    written by another version of Cohort, and where there is no such stage.
    """
    try:
        recipe, environment = recipe_in(run), read_environment(run / "environment.json")
        found = [
            _recorded(run, recipe, index, environment)
            for index, one in enumerate(recipe.stages)
            if one.kind in kinds and stage in ("", one.name)
        ]
    except OSError as error:
        raise UnreadableError(f"{error.filename} cannot be read: {error.strerror}") from None
    except UserError as error:
        raise UnreadableError(str(error)) from None
    if not found:
        there = ", ".join(f"{one.name} ({one.kind})" for one in recipe.stages)
        raise UnreadableError(f"{run} has no stage{f' {stage!r}' if stage else ''} that samples groups; it has {there}")
    return found


def _recorded(run: Path, recipe: Recipe, index: int, environment: Mapping[str, Any]) -> Recorded:
    stage = with_stage_policies(recipe, index, with_stage_models(recipe, index))
    several = sum(one.kind in SAMPLED for one in recipe.stages) > 1
    gates = {one.name: Gate(one.gate, one.gate_at, one.gate_else) for one in stage.reward if one.gate is not None}
    combination = Combination({one.name: float(one.weight) for one in stage.reward}, gates)
    title = f"{stage.name}: " if several else ""
    return Recorded(run, recipe, index, stage, title, environment, settled_objective(stage), combination)


def open_stage(run: Path, stage: str = "") -> Recorded:
    """The one stage of a run that samples groups, or the one of that name. Raises `UnreadableError` as `open_run` does,
    and where there are several.
    """
    found = open_run(run, stage)
    if len(found) > 1:
        names = ", ".join(one.stage.name for one in found)
        raise UnreadableError(f"{run} has several stages that sample: say --stage with one of {names}")
    return found[0]
