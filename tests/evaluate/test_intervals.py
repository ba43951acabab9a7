"""pass@k and intervals against published numbers and brute force."""

from __future__ import annotations

from itertools import combinations
from math import comb

import pytest

from cohort.evaluate import mean_interval, pass_at_k, wilson


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
