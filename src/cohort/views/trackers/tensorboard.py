"""Numbers for TensorBoard: event files in the directory `tensorboard` of the stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cohort.views.trackers.sinks import curated, library, sampled


class TensorBoard:
    """A `Sink`. `tensorboard --logdir runs` shows every run below one directory."""

    def __init__(self, directory: Path, recorded: int):
        # Steps from `purge_step` on are hidden: a resumed run writes them again.
        writer = library("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self._writer = writer(str(directory / "tensorboard"), purge_step=recorded + 1)

    def begin(self, config: Mapping[str, Any]) -> None:
        """The recipe as a text."""
        rows = "\n".join(f"| {key} | {value} |" for key, value in config.items())
        self._writer.add_text("recipe", f"| key | value |\n|---|---|\n{rows}")

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Every number that is one, those to look at first once more at the top."""
        for name, value in (*curated(metrics), *metrics.items()):
            if isinstance(value, int | float) and math.isfinite(value):
                self._writer.add_scalar(name, value, step)

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Groups as a table of text."""
        table = sampled(rows)
        lines = [" | ".join(table[0]), "|".join(["---"] * len(table[0]))]
        for row in table[1:]:
            lines.append(" | ".join(str(cell).replace("|", "\\|").replace("\n", "<br>") for cell in row))
        self._writer.add_text("groups", "\n".join(lines), step)

    def close(self) -> None:
        """Write out what is left."""
        self._writer.close()
