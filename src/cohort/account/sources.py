"""What a run has on disk, read once for its record. What is missing or damaged is empty here, and a gap there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cohort.account.tally import Tally, tally
from cohort.algorithms.objectives import Objective
from cohort.preflight.objective import settled_objective
from cohort.recipe import Recipe
from cohort.record.chain import CHAIN, read_lines
from cohort.record.claims import Basis, Claim
from cohort.record.manifest import sha256_of
from cohort.record.metrics import object_in, objects, read_metrics
from cohort.settings import Record, Stage, policy_of


class RunFiles:
    """The files of a run that belong to all of its stages."""

    def __init__(self, directory: Path, recipe: Recipe):
        self.directory, self.recipe = directory, recipe
        self._digests: dict[str, dict[str, Any]] = {}

    @cached_property
    def environment(self) -> dict[str, Any]:
        """environment.json: the machine, the versions, what was read."""
        return object_in(self.directory / "environment.json")

    @cached_property
    def chain(self) -> list[dict[str, Any]]:
        """The entries of the log, oldest first; those that cannot be read are left out: `record verify` names them."""
        return [entry for _, entry in objects(read_lines(self.directory / CHAIN))]

    @cached_property
    def stages(self) -> list[StageFiles]:
        """Those of every stage, in order."""
        stages, last = self.recipe.stages, len(self.recipe.stages) - 1
        places = [self.directory if i == last else self.directory / "stages" / s.name for i, s in enumerate(stages)]
        return [StageFiles(self, stage, place, i) for i, (stage, place) in enumerate(zip(stages, places, strict=True))]

    @property
    def declared(self) -> Record:
        """What a person declared about the run: of several stages, the last one's table."""
        return self.recipe.stages[-1].record

    @property
    def finished(self) -> bool:
        """Whether every stage has its final model."""
        return all((one.place / "final").is_dir() for one in self.stages)

    def claim(self, basis: Basis, value: Any, *files: str, reason: str | None = None) -> Claim:
        """A fact and the files of the run, by path, in which it can be looked up."""
        evidence = [self._digest(name) for name in files if (self.directory / name).is_file()]
        return Claim(value, basis, "evaluated", reason, tuple(evidence))

    def _digest(self, name: str) -> dict[str, Any]:
        if name not in self._digests:
            self._digests[name] = {"path": name, "sha256": sha256_of(self.directory / name)}
        return self._digests[name]


@dataclass(frozen=True)
class StageFiles:
    """The files of one stage, beside those of the run."""

    run: RunFiles
    stage: Stage
    place: Path
    index: int

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """Its steps, step 0 with what was measured before the first one."""
        file = self.place / "metrics.jsonl"
        return read_metrics(file) if file.is_file() else []

    @cached_property
    def steps(self) -> list[dict[str, Any]]:
        """Its training steps."""
        return [line for line in self.metrics if line["step"] > 0]

    @cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        """What was measured on held-out problems, and after which step; names without `eval/`."""
        measured = [
            (line["step"], {k[5:]: v for k, v in line.items() if k.startswith("eval/")}) for line in self.metrics
        ]
        return [{"step": step, **numbers} for step, numbers in measured if numbers]

    @property
    def begins_with(self) -> int | None:
        """The number of the stage whose model this one goes on from; None where its own table says where from."""
        return policy_of(self.run.recipe.stages, self.index)

    @cached_property
    def chosen(self) -> dict[str, Any] | None:
        """The step whose weights are kept, where `run.keep_best` chose one, and what was found of it."""
        entries = (e for e in reversed(self.run.chain) if e.get("recipe", {}).get("stage") == self.stage.name)
        saved: dict[str, Any] = next((e["policy"] for e in entries if e.get("kind") in ("checkpoint", "close")), {})
        return saved.get("chosen")

    @cached_property
    def until_kept(self) -> list[dict[str, Any]]:
        """`evaluations` up to the step whose weights are kept: the last one is of the model that the stage leaves."""
        end = self.chosen["step"] if self.chosen else math.inf
        return [line for line in self.evaluations if line["step"] <= end]

    @cached_property
    def tally(self) -> Tally | None:
        """What became of its rollouts; None where none were kept."""
        return tally(sorted((self.place / "log").glob("step-*.parquet")))

    @cached_property
    def answers(self) -> Tally | None:
        """What evaluations had answered; None where nothing was kept."""
        return tally(sorted((self.place / "log").glob("eval-*.parquet")))

    @cached_property
    def objective(self) -> Objective:
        """What it optimises."""
        return settled_objective(self.stage)

    @cached_property
    def gate(self) -> Mapping[str, Any]:
        """What the gate found about its rewards, before training."""
        return object_in(self.run.directory / "gate.json", self.stage.name)

    @cached_property
    def contamination(self) -> Mapping[str, Any]:
        """Which held-out questions are also trained on."""
        return object_in(self.run.directory / "contamination.json", self.stage.name)

    @property
    def size(self) -> Mapping[str, Any]:
        """What the stage wrote down of its policy: its class, parameters, device, and what ran it."""
        found = self.run.environment.get("policies", {}).get(self.stage.name, {})
        return found if isinstance(found, dict) else {}

    def total(self, name: str) -> float | None:
        """The sum of a number over all steps; None where no step has it."""
        values = [line[name] for line in self.steps if isinstance(line.get(name), int | float)]
        return sum(values) if values else None

    def path(self, name: str) -> str:
        """A file of the stage as a path inside the run."""
        return (self.place / name).relative_to(self.run.directory).as_posix()

    def claim(self, basis: Basis, value: Any, *files: str, reason: str | None = None) -> Claim:
        """`RunFiles.claim` with files of the stage."""
        return self.run.claim(basis, value, *map(self.path, files), reason=reason)

    def set_by(self, value: Any, reason: str | None = None) -> Claim:
        """A fact that the resolved recipe sets: what it says is what the run did."""
        return self.run.claim("derived", value, "recipe.toml", reason=reason)
