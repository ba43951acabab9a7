"""Where and how one stage runs: its directory, its seed, its console."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.monitor.console import Console
from cohort.record.metrics import read_metrics
from cohort.settings import Stage

__all__ = ["StageRun"]


@dataclass(frozen=True, slots=True)
class StageRun:
    """One stage of a run. `start` is the model directory that the stage before left; `live` a model given in Python."""

    stage: Stage
    title: str
    seed: int
    directory: Path
    threads: int
    console: Console
    start: str | None = None
    live: tuple[Any, Any] | None = None

    @property
    def final(self) -> Path:
        """Where the trained model goes."""
        return self.directory / "final"

    def saves_at(self, step: int) -> bool:
        """Whether a checkpoint is due after this step; after the last one always."""
        every = self.stage.run.save_every
        return step == self.stage.run.steps or bool(every and step % every == 0)

    def evaluates_at(self, step: int) -> bool:
        """Whether an evaluation is due after this step; after the last one always."""
        every = self.stage.run.evaluate_every
        return step == self.stage.run.steps or bool(every and step % every == 0)

    def evaluation_at(self, step: int) -> dict[str, Any]:
        """The eval/ metrics of a step that has been recorded; empty when there are none."""
        path = self.directory / "metrics.jsonl"
        lines = read_metrics(path) if path.exists() else []
        found = next((line for line in lines if line["step"] == step), {})
        return {k: v for k, v in found.items() if k.startswith("eval/")}

    def forget_after(self, step: int) -> None:
        """Delete recorded rollouts of later steps: the resumed run writes the same ones again."""
        for file in (self.directory / "log").glob("*.parquet"):
            number = re.match(r"(?:step|eval)-(\d+)", file.name)
            if number and int(number[1]) > step:
                file.unlink()
