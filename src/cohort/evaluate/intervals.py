"""pass@k, 95% intervals, and two models on the same problems."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cohort.types import UserError

Z95 = 1.959963984540054
ALIKE = 1e-20  # a variance below this is that of rounding


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate of "at least one of k samples is right" from n samples of which c are right.

    1 - C(n-c, k) / C(n, k), as the product 1 - prod_{j=n-c+1..n} (1 - k/j) (Chen et al. 2021, "Evaluating Large
    Language Models Trained on Code", section 2.1). Raises `ValueError` unless 0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / j for j in range(n - c + 1, n + 1))


def wilson(right: float, n: int) -> tuple[float, float]:
    """Wilson's 95% score interval for `right` successes in `n` trials (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = right / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(per_problem: Sequence[float]) -> tuple[float, float]:
    """A 95% interval for the mean of per-problem accuracies; problems are the independent units, samples are not.

    The normal interval from the spread over problems, or Wilson's where all problems are alike.
    """
    n = len(per_problem)
    if n < 2:
        return 0.0, 1.0
    mean = math.fsum(per_problem) / n
    variance = math.fsum((x - mean) ** 2 for x in per_problem) / (n - 1)
    if variance < ALIKE:  # no spread to measure, but not certainty either
        return wilson(math.fsum(per_problem), n)
    half = Z95 * math.sqrt(variance / n)
    return max(0.0, mean - half), min(1.0, mean + half)


@dataclass(frozen=True, slots=True)
class Paired:
    """The mean difference of two models over problems, with its 95% interval [low, high]. Paired, so that how hard a
    problem is cancels out. Where all problems differ by the same there is no spread: Wilson's bound says how many
    others there may be, which could differ by anything.
    """

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
    if variance < ALIKE:
        others = wilson(0, n)[1]
        return Paired(mean, mean - others * (1 + mean), mean + others * (1 - mean), n)
    half = Z95 * math.sqrt(variance / n)
    return Paired(mean, max(-1.0, mean - half), min(1.0, mean + half), n)
