"""Intervals of means: their ends against closed forms, and how often they cover, by simulation and by counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cohort.evaluate import mean_interval, paired
from cohort.evaluate.intervals import ALPHA, above_zero, standard_error


@pytest.mark.parametrize(("n", "right"), [(1, 0), (1, 1), (3, 0), (3, 3), (10, 3), (47, 46), (500, 183), (2000, 1)])
def test_of_shares_it_is_clopper_and_pearsons_interval(n, right):
    exact = stats.binomtest(right, n).proportion_ci(0.95, "exact")
    assert mean_interval([1.0] * right + [0.0] * (n - right)) == pytest.approx((exact.low, exact.high), abs=1e-5)


def test_the_weights_are_those_of_a_dirichlet_distribution():
    values = np.array([0.1, 0.2, 0.35, 0.9, 0.9])
    weights = np.random.default_rng(0).dirichlet(np.ones(6), 200_000)
    ends = (np.quantile(weights @ [*values, 0], 0.025), np.quantile(weights @ [*values, 1], 0.975))
    assert mean_interval(values) == pytest.approx(ends, abs=3e-3)


def test_with_many_problems_it_is_the_normal_interval():
    values = np.random.default_rng(1).integers(0, 9, 2000) / 8
    half = 1.96 * values.std() / math.sqrt(2000)
    assert mean_interval(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=8e-4)


def covers(values, truth, low=0.0, high=1.0):
    """Whether the intervals of many samples [R, n] hold the truth, by the tails that define their ends."""
    n = values.shape[1]
    distinct = np.unique(values)
    many = (values[..., None] == distinct).sum(1)  # [R, J]
    one = np.ones((len(values), 1), int)

    def tail(points, end, at):
        factors = np.broadcast_to(np.append(points - at, end - at), (len(values), len(points) + 1))
        return above_zero(factors, np.concatenate([many, one], 1))

    above = tail(distinct, high, truth) > ALPHA / 2  # the upper end is above the truth
    below = tail(-distinct, -low, -truth) > ALPHA / 2
    assert n == many[0].sum()
    return above & below


def test_what_the_simulations_ask_is_what_the_ends_say():
    draws = np.random.default_rng(2).binomial(4, 0.3, (25, 7)) / 4
    for truth in (0.1, 0.3, 0.45):
        ends = [mean_interval(row) for row in draws]
        assert list(covers(draws, truth)) == [low < truth < high for low, high in ends]


SAMPLED = {  # problems and how right they are -> the chances of single problems
    "alike": lambda draw, shape: np.full(shape, 0.5),
    "nearly all right": lambda draw, shape: draw.beta(9, 0.5, shape),
    "half solved, half not": lambda draw, shape: draw.beta(0.3, 0.3, shape),
    "rarely right": lambda draw, shape: draw.beta(0.1, 2.0, shape),
    "one in a hundred": lambda draw, shape: np.full(shape, 0.01),
}
TRUTH = {"alike": 0.5, "nearly all right": 9 / 9.5, "half solved, half not": 0.5, "rarely right": 0.1 / 2.1}


@pytest.mark.parametrize("problems", [3, 5, 10, 50, 500, 2000])
@pytest.mark.parametrize("kind", SAMPLED)
def test_the_interval_of_sampled_accuracy_covers(kind, problems):
    draw, runs = np.random.default_rng(3), 2000 if problems <= 50 else 400
    chances = SAMPLED[kind](draw, (runs, problems))
    rates = draw.binomial(4, chances) / 4
    covered = covers(rates, TRUTH.get(kind, 0.01)).mean()
    assert covered >= 0.95 - 2.6 * math.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize("problems", [3, 4, 5, 6, 8, 10, 20])
def test_the_interval_of_greedy_accuracy_covers_whatever_the_truth(problems):
    ends = np.array([mean_interval([1.0] * c + [0.0] * (problems - c)) for c in range(problems + 1)])
    for truth in np.linspace(0.002, 0.998, 250):
        inside = (ends[:, 0] <= truth) & (truth <= ends[:, 1])
        assert stats.binom.pmf(np.arange(problems + 1), problems, truth)[inside].sum() >= 0.95


@pytest.mark.parametrize("problems", [3, 5, 10, 20, 50, 200, 2000])
@pytest.mark.parametrize(
    ("better", "worse"), [(0.02, 0.0), (0.1, 0.0), (0.3, 0.0), (0.9, 0.0), (0.15, 0.1), (0.0, 0.0)]
)
def test_the_interval_of_a_paired_difference_covers(better, worse, problems):
    runs = 2000 if problems <= 200 else 300
    draws = np.random.default_rng(4).random((runs, problems))
    differences = (draws < better) * 1.0 - (draws > 1 - worse)
    covered = covers(differences, better - worse, low=-1.0).mean()
    assert covered >= 0.95 - 2.6 * math.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize("problems", [3, 10, 50])
def test_the_interval_of_a_difference_of_rates_covers(problems):
    draw, runs = np.random.default_rng(5), 2000
    hard = draw.beta(0.5, 0.5, (runs, problems))
    differences = draw.binomial(4, hard + (1 - hard) * 0.2) / 4 - draw.binomial(4, hard) / 4
    assert covers(differences, 0.1, low=-1.0).mean() >= 0.938


def test_clusters_are_what_is_independent():
    draw, inside, naive, runs = np.random.default_rng(6), 0, 0, 60
    names = np.repeat(np.arange(12), 5)
    for _ in range(runs):
        values = np.repeat(draw.random(12) < 0.6, 5) * 1.0  # five problems of a text are all right or all wrong
        low, high = mean_interval(values, names)
        inside += low <= 0.6 <= high
        low, high = mean_interval(values)
        naive += low <= 0.6 <= high
    assert inside / runs >= 0.93
    assert naive / runs < 0.8
    single = draw.random(9)
    assert mean_interval(single, range(9)) == pytest.approx(mean_interval(single), abs=1e-9)


def test_standard_errors_over_problems_and_over_clusters():
    values = [0.0, 0.25, 0.5, 1.0]
    assert standard_error(values) == pytest.approx(stats.sem(values))
    # Two clusters of two: residuals of their sums from 2 x 0.4375 are -0.625 and 0.625.
    assert standard_error(values, "aabb") == pytest.approx(math.sqrt(2 * 2 * 0.625**2) / 4)
    assert math.isnan(standard_error([1.0]))


def test_no_problems_say_nothing_and_one_says_little():
    assert mean_interval([]) == (0.0, 1.0)
    assert mean_interval([1.0]) == pytest.approx((0.025, 1.0), abs=1e-6)
    assert mean_interval([0.5, 0.5], low=-1, high=1)[0] < 0


def same(value: float, n: int = 24) -> dict[str, float]:
    return {str(problem): value for problem in range(n)}


@pytest.mark.parametrize("both", [0.0, 0.125, 1 / 3, 1.0])
def test_two_models_without_a_difference_are_not_certainly_alike(both):
    found = paired(same(both), same(both))
    assert found.mean == 0
    assert (found.low, found.high) == pytest.approx((-0.1425, 0.1425), abs=1e-4)  # 1 - 0.025^(1/24)
    assert paired(same(0.0, 500), same(0.0, 500)).high == pytest.approx(0.0074, abs=1e-4)


def test_rounding_is_no_spread():
    ours = {"a": 0.3, "b": 0.4, "c": 0.7}
    theirs = {"a": 0.1, "b": 0.2, "c": 0.5}  # the differences are 0.2, and differ in the last bits
    assert paired(ours, theirs).high > 0.4
    low, high = mean_interval([0.1 + 0.2, 0.3, 0.3])
    assert high - low > 0.5


def test_an_interval_of_a_difference_stays_within_what_there_is():
    found = paired({"a": 1, "b": 1, "c": 0}, {"a": 0, "b": 0, "c": 0})
    assert -1 <= found.low <= found.mean <= found.high <= 1
