"""Numbers for TensorBoard: event files in the directory `tensorboard` of the stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cohort.types import UserError


class TensorBoard:
    """A `Sink`. `tensorboard --logdir runs` shows every run below one directory."""

    def __init__(self, directory: Path, recorded: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "run.trackers names tensorboard, which is not installed: pip install 'cohort[tensorboard]'"
            ) from None
        # Steps from `purge_step` on are hidden: a resumed run writes them again.
        self._writer = SummaryWriter(str(directory / "tensorboard"), purge_step=recorded + 1)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Every number that is one."""
        for name, value in metrics.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write out what is left."""
        self._writer.close()
