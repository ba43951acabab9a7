"""pass@k and intervals against published numbers and brute force."""

from __future__ import annotations

from itertools import combinations
from math import comb

import pytest

from cohort.evaluate import mean_interval, pass_at_k, wilson
from cohort.evaluate.intervals import paired


@pytest.mark.parametrize(
    ("n", "c", "k", "value"),
    [(10, 3, 1, 0.3), (10, 3, 5, 0.9166666667), (16, 4, 8, 0.9615384615), (8, 2, 4, 0.7857142857)],
)
def test_pass_at_k_as_published(n, c, k, value):
    assert pass_at_k(n, c, k) == pytest.approx(value, abs=1e-10)


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(n):
    for c in range(n + 1):
        for k in range(1, n + 1):
            hits = sum(min(subset) < c for subset in combinations(range(n), k))
            assert pass_at_k(n, c, k) == pytest.approx(hits / comb(n, k), abs=1e-12)


@pytest.mark.parametrize("bad", [(3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4)])
def test_pass_at_k_refuses_nonsense(bad):
    with pytest.raises(ValueError, match="pass@k needs"):
        pass_at_k(*bad)


def test_wilson():
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_interval_of_a_mean_is_over_problems():
    low, high = mean_interval([0.0, 1.0] * 50)
    assert (low + high) / 2 == pytest.approx(0.5)
    assert high - low == pytest.approx(2 * 1.95996 * 0.50252 / 10, abs=1e-4)


def same(value: float, n: int = 24) -> dict[str, float]:
    return {str(problem): value for problem in range(n)}


@pytest.mark.parametrize("both", [0.0, 0.125, 1 / 3, 1.0])
def test_two_models_without_a_difference_are_not_certainly_alike(both):
    found = paired(same(both), same(both))
    assert found.mean == 0
    assert (found.low, found.high) == pytest.approx((-0.1380, 0.1380), abs=1e-4)  # Tango's interval for 0 of 24
    assert paired(same(0.0, 500), same(0.0, 500)).high == pytest.approx(0.0076, abs=1e-4)


@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"), [(1, 0, 0.724, 1), (0, 1, -1, -0.724), (0.75, 0.5, 0.08, 0.35)]
)
def test_the_same_difference_everywhere_is_no_certainty(ours, theirs, low, high):
    found = paired(same(ours), same(theirs))
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-3)


def test_rounding_is_no_spread():
    ours = {"a": 0.3, "b": 0.4, "c": 0.7}
    theirs = {"a": 0.1, "b": 0.2, "c": 0.5}  # the differences are 0.2, and differ in the last bits
    assert paired(ours, theirs).high > 0.4
    low, high = mean_interval([0.1 + 0.2, 0.3, 0.3])
    assert high - low > 0.5


def test_an_interval_of_a_difference_stays_within_what_there_is():
    found = paired({"a": 1, "b": 1, "c": 0}, {"a": 0, "b": 0, "c": 0})
    assert -1 <= found.low <= found.mean <= found.high <= 1
