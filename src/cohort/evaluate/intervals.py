"""Intervals of means of bounded values, such as accuracies over problems, that cover from one problem on.

A normal interval has no width where all problems agree, and a bootstrap knows nothing of what it has not seen: with few
problems both miss. Here each end is that of a smoothed bootstrap which has seen one problem more, the worst one that
there could be (Gaffke 2005, "Three test statistics for a nonparametric one-sided hypothesis on the mean of a
nonnegative variable"; Learned-Miller and Thomas 2019, "A New Confidence Interval for the Mean of a Bounded Random
Variable"):

    the upper end is the 97.5% point of sum_i W_i x_i + W_0 high,  (W_0, ..., W_n) ~ Dirichlet(1, ..., 1)

and the lower one its mirror image. For shares of right answers this is Clopper and Pearson's interval, and for
differences of right and wrong it excludes 0 exactly where McNemar's exact test rejects. With many problems it is that
of the bootstrap. That it covers for every distribution is a conjecture that nobody has broken; tests simulate it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = Sequence[float] | NDArray[np.floating[Any]]
ALPHA = 0.05  # intervals are 95%
STEP = 0.1
NODES = np.exp(np.arange(-24.0, 34.0, STEP)).reshape(-1, 116)  # of the integral: u, even in log u
FAR = 10.0  # standard deviations from 0, beyond which a sum of exponentials is on one side but for 1e-4 of cases


def mean_interval(
    values: Floats,
    clusters: Iterable[Hashable] | None = None,
    low: float = 0.0,
    high: float = 1.0,
) -> tuple[float, float]:
    """The 95% interval of the mean of values in [low, high] over independent problems; [low, high] without any.

    `clusters` has the name of the cluster of each value: then clusters are independent, and not the values in one.
    """
    if not len(values):
        return low, high
    sums, sizes = clustered(np.asarray(values, float), clusters)
    upper = _upper(sums, sizes, high)
    return max(low, low + high - _upper((low + high) * sizes - sums, sizes, high)), min(high, upper)


def standard_error(values: Floats, clusters: Iterable[Hashable] | None = None) -> float:
    """Of the mean over problems, or over clusters of them (Miller 2024, "Adding Error Bars to Evals", equations 2 and
    4, with the factor c / (c - 1) for c clusters); NaN for a single one.
    """
    sums, sizes = clustered(np.asarray(values, float), clusters)
    count = len(sums)
    if count < 2:
        return math.nan
    residuals = sums - sizes * (sums.sum() / sizes.sum())
    return float(np.sqrt(count / (count - 1) * (residuals**2).sum()) / sizes.sum())


def clustered(
    values: NDArray[np.float64], clusters: Iterable[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sum of the values of every cluster, and how many it has; each value is its own where none is named."""
    if clusters is None:
        return values, np.ones(len(values))
    names: dict[Hashable, int] = {}
    index = [names.setdefault(name, len(names)) for name in clusters]
    return np.bincount(index, values).astype(np.float64), np.bincount(index).astype(np.float64)


def _upper(sums: NDArray[np.float64], sizes: NDArray[np.float64], high: float) -> float:
    """The upper end: the t at which sum_c W_c (S_c - n_c t) + W_0 n (high - t) is above 0 in 2.5% of cases, n the mean
    size of a cluster.
    """
    pairs, counts = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
    many = np.append(counts, 1)

    def excess(t: float) -> float:
        return ALPHA / 2 - float(above_zero(np.append(pairs[0] - pairs[1] * t, sizes.mean() * (high - t)), many))

    return root(excess, float(sums.sum() / sizes.sum()), high)


def root(function: Callable[[float], float], a: float, b: float) -> float:
    """Where a rising function is 0 between `a` and `b`, to 1e-9: false position, with the Illinois correction."""
    if b - a < 1e-12:
        return b
    at_a, at_b, kept = function(a), function(b), 0
    x = a
    while b - a > 1e-9:
        x = (a * at_b - b * at_a) / (at_b - at_a)
        if abs(found := function(x)) < 1e-10:
            break
        if found < 0:
            a, at_a, at_b, kept = x, found, at_b / (2 if kept < 0 else 1), -1
        else:
            b, at_b, at_a, kept = x, found, at_a / (2 if kept > 0 else 1), 1
    return x


def above_zero(factors: NDArray[np.float64], many: NDArray[np.int64]) -> NDArray[np.float64]:
    """P(sum_j a_j G_j > 0) for `factors` a [..., J] and independent G_j ~ Gamma(`many`[j], 1), as weights of a
    Dirichlet distribution are but for their sum.

    By the inversion formula of Gil-Pelaez (1951), 1/2 + 1/pi integral of sin(sum_j m_j atan(a_j u)) / (u prod_j
    (1 + a_j^2 u^2)^(m_j / 2)) du, as Imhof (1961) has it; in log u the trapezoid rule is exact to about 1e-8.
    """
    scale = np.sqrt((many * factors**2).sum(-1, keepdims=True))
    a = factors / np.where(scale, scale, 1.0)  # [..., J]: the sum has standard deviation 1
    mean = (many * a).sum(-1)
    inside = np.zeros(a.shape[:-1])
    for u in NODES:
        at = a[..., None] * u  # [..., J, nodes]
        angle = (many[..., None] * np.arctan(at)).sum(-2)
        logs = (many[..., None] * np.log1p(at * at)).sum(-2)
        inside += (np.sin(angle) * np.exp(-0.5 * logs)).sum(-1) * STEP
        if logs.min() > 60:  # nothing is left of the integral
            break
    chance = np.where(np.abs(mean) < FAR, np.clip(0.5 + inside / math.pi, 0.0, 1.0), mean > 0)
    chance = np.where((factors <= 0).all(-1), 0.0, chance)
    positive = (factors >= 0).all(-1) & (factors > 0).any(-1)
    return np.asarray(np.where(positive, 1.0, chance))
