"""Numbers for Weights & Biases, in the project that WANDB_PROJECT names (else `cohort`). With WANDB_MODE=offline they
stay here until `wandb sync`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cohort.views.trackers.sinks import LAST_WORDS, curated, identity, library, sampled


class WandB:
    """A `Sink`. A resumed run goes on as the same one there; steps that are written again lie on those of before."""

    def __init__(self, directory: Path, recorded: int):
        self._wandb = wandb = library("wandb", "wandb")
        name = identity(directory)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "cohort"),
            name=name,
            id=name,
            resume="allow",
            dir=str(directory),
            settings=wandb.Settings(silent=True, finish_timeout=LAST_WORDS, console="off", x_disable_stats=True),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def begin(self, config: Mapping[str, Any]) -> None:
        """The recipe as configuration."""
        self._run.config.update(dict(config), allow_val_change=True)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """All numbers, those to look at first once more in a section of their own."""
        self._run.log({"step": step, **metrics, **dict(curated(metrics))})

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Groups as a table."""
        headings, *cells = sampled(rows)
        table = self._wandb.Table(columns=headings, data=[[_plain(cell) for cell in row] for row in cells])
        self._run.log({"step": step, "groups": table})

    def close(self) -> None:
        """Write out what is left."""
        self._run.finish()


def _plain(cell: Any) -> Any:
    return cell if isinstance(cell, int | float) else str(cell)
