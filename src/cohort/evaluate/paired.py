"""Two models on the same problems: their difference, paired, so that how hard a problem is cancels out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cohort.evaluate.intervals import Z95
from cohort.types import UserError

__all__ = ["Paired", "paired"]


@dataclass(frozen=True, slots=True)
class Paired:
    """The mean difference over problems with its 95% interval [low, high]."""

    mean: float
    low: float
    high: float
    problems: int


def paired(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Paired:
    """Ours minus theirs, of accuracies by problem, over the problems that both have. Raises `UserError` without any."""
    differences = [ours[problem] - theirs[problem] for problem in ours if problem in theirs]
    n = len(differences)
    if n == 0:
        raise UserError("the two models have no scored problem in common")
    mean = math.fsum(differences) / n
    variance = math.fsum((d - mean) ** 2 for d in differences) / max(n - 1, 1)
    half = Z95 * math.sqrt(variance / n)
    return Paired(mean, mean - half, mean + half, n)
