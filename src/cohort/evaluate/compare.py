"""Two models on the same problems: how much better one is, how sure that is, and what to call it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cohort.evaluate.intervals import ALPHA, clustered, mean_interval, standard_error
from cohort.types import UserError

Verdict = Literal["improved", "regressed", "non_inferior", "inconclusive"]
POWER = (1.959963984540054, 0.8416212335729143)  # normal quantiles: a two-sided test at 5% that finds 80%
EXACT = 14  # pairs that differ, up to which all their signs are tried
FLIPS = 20_000  # else so many of them, drawn
FEWEST = 6  # problems: with fewer no exact test reaches 5%, as 2 / 2^5 is more


@dataclass(frozen=True, slots=True)
class Paired:
    """The mean difference of two models over problems with its 95% interval [low, high], and what tests say of it.

    Paired, so that how hard a problem is cancels out. `p` is of McNemar's exact test where every problem is right or
    wrong, else of the permutation that flips the signs of differences; `p_holm` is that p among those of all tasks
    compared (Holm 1979). `detectable` is the difference that so many problems would find in four of five cases; None:
    there are too few for any.
    """

    mean: float
    low: float
    high: float
    problems: int
    better: int
    worse: int
    se: float
    p: float
    p_holm: float
    test: Literal["mcnemar", "permutation"]
    detectable: float | None
    margin: float
    verdict: Verdict


def paired(
    ours: Mapping[str, float],
    theirs: Mapping[str, float],
    margin: float = 0.02,
    clusters: Mapping[str, Hashable] | None = None,
) -> Paired:
    """Ours minus theirs, of accuracies by problem, over the problems that both have; `clusters` says which belong
    together. Raises `UserError` without any.
    """
    both = [problem for problem in ours if problem in theirs]
    if not both:
        raise UserError("the two models have no scored problem in common")
    differences = np.array([ours[problem] - theirs[problem] for problem in both])
    differences[np.abs(differences) < 1e-12] = 0.0  # rounding is no difference
    of = None if clusters is None else [clusters.get(problem, problem) for problem in both]
    low, high = mean_interval(differences, of, -1.0, 1.0)
    sums, sizes = clustered(differences, of)
    binary = of is None and bool(np.isin(differences, (-1.0, 0.0, 1.0)).all())
    better, worse = int((differences > 0).sum()), int((differences < 0).sum())
    p = mcnemar(better, worse) if binary else sign_flip(sums)
    return Paired(
        mean=float(differences.mean()),
        low=low,
        high=high,
        problems=len(both),
        better=better,
        worse=worse,
        se=standard_error(differences, of),
        p=p,
        p_holm=p,
        test="mcnemar" if binary else "permutation",
        detectable=detectable(sums, sizes),
        margin=margin,
        verdict=verdict(low, high, margin, p),
    )


def verdict(low: float, high: float, margin: float, p: float = 0.0) -> Verdict:
    """What an interval of a difference says, by a margin that was stated before: `improved` and `regressed` where it
    excludes 0 and the test agrees, `non_inferior` where it excludes a loss of `margin`.
    """
    if p <= ALPHA and low > 0:
        return "improved"
    if p <= ALPHA and high < 0:
        return "regressed"
    return "non_inferior" if low > -margin else "inconclusive"


def among(tasks: Mapping[str, Paired]) -> dict[str, Paired]:
    """Comparisons of several tasks with Holm's p, by which their verdicts go then."""
    adjusted = holm([one.p for one in tasks.values()])
    return {
        name: replace(one, p_holm=p, verdict=verdict(one.low, one.high, one.margin, p))
        for (name, one), p in zip(tasks.items(), adjusted, strict=True)
    }


def holm(ps: Sequence[float]) -> list[float]:
    """p-values adjusted so that one false alarm among all is at most as likely as each says (Holm 1979)."""
    adjusted, so_far = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        so_far = max(so_far, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = so_far
    return adjusted


def mcnemar(better: int, worse: int) -> float:
    """The two-sided p of McNemar's exact test: of pairs that differ, either side is as likely (a binomial test)."""
    return min(1.0, 2 * sign_test(max(better, worse), min(better, worse)))


def sign_test(more: int, less: int) -> float:
    """The chance of `more` heads or more in `more + less` tosses of a fair coin."""
    tosses = more + less
    return sum(math.comb(tosses, heads) for heads in range(more, tosses + 1)) / 2**tosses


def sign_flip(differences: NDArray[np.float64]) -> float:
    """The two-sided p of the paired permutation test: were the models alike, each difference could as well have the
    other sign. All signs up to `EXACT` pairs that differ; else `FLIPS` that are drawn, themselves counted as one more
    (Phipson and Smyth 2010).
    """
    moved = differences[differences != 0]
    if not len(moved):
        return 1.0
    seen = abs(moved.sum()) * (1 - 1e-9)
    if len(moved) <= EXACT:
        signs = 1 - 2 * (np.arange(1 << len(moved))[:, None] >> np.arange(len(moved)) & 1)
        return float((np.abs(signs @ moved) >= seen).mean())
    draws, hits = np.random.default_rng(0), 0
    for _ in range(FLIPS // 1000):
        signs = 1 - 2 * draws.integers(0, 2, (1000, len(moved)), dtype=np.int8)
        hits += int((np.abs(signs @ moved) >= seen).sum())
    return (hits + 1) / (FLIPS + 1)


def detectable(sums: NDArray[np.float64], sizes: NDArray[np.float64]) -> float | None:
    """The smallest mean difference that a test at 5% would find with 80%, were differences as spread as these: 2.8
    standard errors, with one difference of 1 and one of -1 added (Bonett and Price 2012), so that pairs that all agree
    are not taken for certainty. None with fewer than `FEWEST` problems or clusters.
    """
    if len(sums) < FEWEST:
        return None
    size = float(sizes.mean())
    added = np.append(sums, [size, -size])
    spread = float(np.sqrt(len(added) * added.var(ddof=1))) / (len(added) * size)
    return min(1.0, sum(POWER) * spread)
