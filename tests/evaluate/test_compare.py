"""Two models on the same problems: tests against scipy's, verdicts, what could have been found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cohort.evaluate.compare import FEWEST, among, detectable, holm, mcnemar, paired, sign_flip, verdict
from cohort.types import UserError


def rates(values):
    return {str(number): float(value) for number, value in enumerate(values)}


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (5, 0), (6, 0), (0, 6), (9, 3), (40, 60), (700, 600)])
def test_mcnemars_exact_test_is_the_binomial_test(better, worse):
    expected = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert mcnemar(better, worse) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("better", "worse", "same"), [(6, 0, 0), (5, 0, 40), (9, 1, 30), (9, 2, 3), (12, 3, 9), (0, 7, 2)]
)
def test_the_interval_excludes_zero_exactly_where_mcnemars_test_rejects(better, worse, same):
    found = paired(rates([1] * better + [0] * (worse + same)), rates([0] * better + [1] * worse + [0] * same))
    assert found.test == "mcnemar"
    assert (found.low > 0 or found.high < 0) == (found.p <= 0.05)
    assert (found.better, found.worse, found.problems) == (better, worse, better + worse + same)


@pytest.mark.parametrize("n", [2, 5, 9, 14])
def test_the_permutation_test_is_scipys(n):
    draws = np.random.default_rng(n).normal(0.3, 1, n)
    exact = stats.permutation_test((draws,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(draws) == pytest.approx(exact.pvalue, abs=1e-12)


def test_with_many_pairs_the_permutation_test_draws():
    draws = np.random.default_rng(0).normal(0.2, 1, 200)
    assert sign_flip(draws) == pytest.approx(stats.ttest_1samp(draws, 0).pvalue, abs=4e-3)
    assert sign_flip(draws) == sign_flip(draws)
    assert sign_flip(np.full(200, 0.5)) == pytest.approx(1 / 20_001)
    assert sign_flip(np.zeros(9)) == 1.0


def test_holm_as_published():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.6, 0.9]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("low", "high", "p", "word"),
    [
        (0.01, 0.2, 0.01, "improved"),
        (0.01, 0.2, 0.08, "non_inferior"),  # one of several tasks
        (-0.2, -0.001, 0.01, "regressed"),
        (-0.01, -0.001, 0.01, "regressed"),  # a little is still less
        (-0.019, 0.1, 0.5, "non_inferior"),
        (-0.021, 0.1, 0.5, "inconclusive"),
    ],
)
def test_verdicts(low, high, p, word):
    assert verdict(low, high, 0.02, p) == word


def test_several_tasks_are_judged_together():
    found = paired(rates([1] * 7 + [0] * 90), rates([0] * 97))
    assert found.verdict == "improved"
    together = among({"a": found, **{name: paired(rates([0] * 9), rates([0] * 9)) for name in "bcd"}})
    assert together["a"].p_holm == pytest.approx(4 * found.p)
    assert together["a"].verdict == "non_inferior"
    assert among({"a": found})["a"] == found


def test_all_right_twice_shows_no_loss_only_with_enough_problems():
    assert paired(rates([1] * 50), rates([1] * 50)).verdict == "inconclusive"
    assert paired(rates([1] * 200), rates([1] * 200)).verdict == "non_inferior"


def test_what_could_have_been_found_is_found_in_four_of_five_cases():
    draw, n = np.random.default_rng(1), 300
    smallest = detectable(draw.choice([-1.0, 0, 1.0], n, p=[0.1, 0.8, 0.1]), np.ones(n))
    p = [0.1 - smallest / 2, 0.8, 0.1 + smallest / 2]
    draws = draw.choice([-1.0, 0, 1.0], (400, n), p=p)
    found = np.mean([mcnemar(int((row > 0).sum()), int((row < 0).sum())) <= 0.05 for row in draws])
    assert 0.72 < found < 0.9


def test_with_too_few_problems_nothing_can_be_found():
    assert paired(rates([1] * (FEWEST - 1)), rates([0] * (FEWEST - 1))).detectable is None
    assert paired(rates([1] * (FEWEST - 1)), rates([0] * (FEWEST - 1))).verdict == "inconclusive"
    assert paired(rates([1] * FEWEST), rates([0] * FEWEST)).verdict == "improved"


def test_clusters_go_whole():
    ours, theirs = rates([1, 1, 1, 1, 0, 0, 0, 0, 0, 0]), rates([0] * 10)
    alone, together = paired(ours, theirs), paired(ours, theirs, clusters={str(i): i // 2 for i in range(10)})
    assert together.test == "permutation"
    assert together.p == pytest.approx(0.5)
    assert together.low < alone.low


def test_models_without_a_common_problem_are_not_compared():
    with pytest.raises(UserError, match="no scored problem in common"):
        paired({"a": 1.0}, {"b": 1.0})
