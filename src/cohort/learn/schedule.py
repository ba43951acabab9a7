"""Learning-rate schedules: pure functions of the step."""

from __future__ import annotations

import math
from typing import Literal

from cohort.settings import Optimizer

__all__ = ["Schedule", "learning_rate", "rate_at"]

Schedule = Literal["constant", "linear", "cosine"]


def learning_rate(step: int, steps: int, peak: float, warmup_steps: int = 0, schedule: Schedule = "constant") -> float:
    """The rate of `step` (counted from 0) of a run of `steps`.

    It rises linearly over the first `warmup_steps` (step 0 already takes peak / warmup_steps), then stays, or falls
    linearly or along half a cosine to a tenth of the peak at the last step.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if schedule == "constant":
        return peak
    progress = min(1.0, (step - warmup_steps) / max(1, steps - 1 - warmup_steps))
    left = 1 - progress if schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return peak * (0.1 + 0.9 * left)


def rate_at(table: Optimizer, steps: int, step: int) -> float:
    """The rate of `step`, counted from 1, of a stage of `steps`."""
    return learning_rate(step - 1, steps, table.learning_rate, table.warmup_steps, table.schedule)
