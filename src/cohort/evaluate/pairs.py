"""How good a reward model is on pairs that it was not trained on: how often it is right, whether it knows how often,
and whether it pays for length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from cohort.evaluate.intervals import mean_interval

BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs on which the model was about equally sure. Calibrated: `confidence` is near `accuracy`."""

    low: float
    high: float
    pairs: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class PairReport:
    """Measures over N held-out pairs.

    accuracy            share of pairs whose chosen answer scores higher (a tie is not right), with its 95% interval
    loss                mean of -log sigmoid(chosen - rejected), without margins
    calibration_error   expected calibration error: over `bins` of confidence sigmoid(|difference|), the mean of
                        |confidence - accuracy| weighted by pairs (Guo et al. 2017, "On Calibration of Modern Neural
                        Networks", equation 3)
    length_correlation  of difference in score with difference in tokens within pairs, through the origin, so that it
                        does not depend on which answer is called the first: sum(ds dl) / sqrt(sum(ds^2) sum(dl^2))
    longer_chosen       share of pairs of unequal length whose chosen answer is the longer one: what the data prefer
    longer_preferred    share of them whose longer answer scores higher: what the model prefers
    score_mean, score_std  over all answers
    """

    pairs: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    loss: float
    calibration_error: float
    length_correlation: float
    longer_chosen: float
    longer_preferred: float
    score_mean: float
    score_std: float
    bins: tuple[Bin, ...]

    def metrics(self) -> dict[str, float]:
        """The numbers under their public names."""
        return {f"eval/{name}": float(value) for name, value in asdict(self).items() if name != "bins"}

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; what could not be measured is None."""
        plain: dict[str, Any] = orjson.loads(orjson.dumps(self))  # which writes NaN as null
        return plain


def report_pairs(
    chosen: Sequence[float], rejected: Sequence[float], chosen_tokens: Sequence[int], rejected_tokens: Sequence[int]
) -> PairReport:
    """Measure the scores `[N]` of pairs whose answers have so many tokens. NaN where there is nothing to measure."""
    count = len(chosen)
    gaps = [better - worse for better, worse in zip(chosen, rejected, strict=True)]
    longer = [a - b for a, b in zip(chosen_tokens, rejected_tokens, strict=True)]
    right = sum(gap > 0 for gap in gaps)
    unequal = [(gap, extra) for gap, extra in zip(gaps, longer, strict=True) if extra]
    both = [*chosen, *rejected]
    mean = _mean(both)
    bins = _bins(gaps)
    return PairReport(
        count,
        _ratio(right, count),
        *mean_interval([1.0] * right + [0.0] * (count - right)),
        _mean([_softplus(-gap) for gap in gaps]),
        _ratio(math.fsum(b.pairs * abs(b.confidence - b.accuracy) for b in bins), count),
        _through_origin(gaps, longer),
        _ratio(sum(extra > 0 for _, extra in unequal), len(unequal)),
        _ratio(sum(gap * extra > 0 for gap, extra in unequal), len(unequal)),
        mean,
        math.sqrt(_mean([(score - mean) ** 2 for score in both])) if both else math.nan,
        bins,
    )


def _bins(gaps: Sequence[float]) -> tuple[Bin, ...]:
    """Equal steps of confidence from 0.5 to 1; those without a pair are left out."""
    members: list[list[float]] = [[] for _ in range(BINS)]
    for gap in gaps:
        members[min(int((_confidence(gap) - 0.5) * 2 * BINS), BINS - 1)].append(gap)
    return tuple(
        Bin(
            0.5 + number / (2 * BINS),
            0.5 + (number + 1) / (2 * BINS),
            len(inside),
            _mean([_confidence(gap) for gap in inside]),
            # A tie is a coin flip, and says so: as far as calibration goes it is half right.
            _mean([0.5 + math.copysign(0.5, gap) if gap else 0.5 for gap in inside]),
        )
        for number, inside in enumerate(members)
        if inside
    )


def _confidence(gap: float) -> float:
    """sigmoid(|gap|): what the model gives for the answer that it prefers."""
    return 1 / (1 + math.exp(-min(abs(gap), 700.0)))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _through_origin(a: Sequence[float], b: Sequence[float]) -> float:
    size = math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / size if size else math.nan


def _mean(values: Sequence[float]) -> float:
    return _ratio(math.fsum(values), len(values))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
