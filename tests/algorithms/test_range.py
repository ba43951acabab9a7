"""Rewards at the ends of float64: computed right, or refused; never advantages of 0 in silence."""

from __future__ import annotations

import pytest
import torch

from cohort.algorithms import objectives
from cohort.algorithms.advantages import gdpo, normalise, process_supervision, weighted_sum
from cohort.rewards import RewardFailure, ScoringItem, combine, resolve, score_group
from cohort.rewards.calling.call import as_score
from cohort.settings import Reward as RewardTable
from cohort.types import UserError

SCALES = ("group_std", "batch_std", "centred_batch_std", "leave_one_out_std", "none")
BASELINES = ("group_mean", "leave_one_out", "batch_mean", "none")
TOO_FAR = [
    [0.0, 1e300, 0.0, 0.0],
    [0.0, 0.0, -1e308, 0.0],
    [1e308, -1e308, 1e308, 0.0],
    [1.7e308, 1.7e308, 1.7e308, 0.0],
    [0.0, 1e160, 0.0, 2e160],
]


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("rewards", TOO_FAR)
def test_rewards_too_far_apart_are_refused_or_computed_never_0(rewards, scale, baseline):
    ordinary = [0.0, 1.0, 0.0, 1.0]
    try:
        found = normalise(torch.tensor([rewards, ordinary], dtype=torch.float64), baseline, scale)
    except ValueError as error:
        assert "float64" in str(error)  # noqa: PT017 (either is right)
    else:
        assert found.isfinite().all()
        small = torch.tensor([rewards, ordinary], dtype=torch.float64) / 1e200
        assert torch.allclose(found, normalise(small, baseline, scale, eps=0.0) * (1e200 if scale == "none" else 1))


@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale != "none"])
def test_a_std_that_overflows_is_refused(scale):
    with pytest.raises(ValueError, match="scale them to a range near 1"):
        normalise(torch.tensor([[0.0, 1e300, 5.0]], dtype=torch.float64), scale=scale)


def test_a_std_that_underflows_is_refused_where_nothing_is_added_to_it():
    close = torch.tensor([[0.0, 1e-300]], dtype=torch.float64)
    with pytest.raises(ValueError, match="too close"):
        normalise(close, eps=0.0)
    assert normalise(close, eps=1e-6).isfinite().all()


def test_what_float64_holds_is_computed():
    for factor in (1e150, 1e100, 1.0, 1e-100):
        found = normalise(torch.tensor([[0.0, factor]], dtype=torch.float64), eps=0.0)
        assert torch.allclose(found, torch.tensor([[-(0.5**0.5), 0.5**0.5]], dtype=torch.float64))
    equal = torch.full((1, 8), 1.7e308, dtype=torch.float64)
    assert (normalise(equal) == 0).all()  # all equal: no signal, whatever they are


def test_weights_that_overflow_are_refused():
    rewards = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    for weights in ([1e308, 1.0], [1e200, -1e200]):
        with pytest.raises(ValueError, match="float64"):
            gdpo(rewards * 10, weights)
    with pytest.raises(ValueError, match="float64"):
        weighted_sum(rewards * 10, [1e308, 1.0])
    with pytest.raises(ValueError, match="float64"):
        objectives.preset("grpo").advantages(rewards * 1e200, weights=[1e200, 1.0])
    with pytest.raises(ValueError, match="float64"):
        process_supervision([[0.0, 1e300], [1.0]], [[0, 1], [1]], [2, 2])


@pytest.mark.parametrize(
    ("scores", "weights"),
    [
        ({"a": (1e308,)}, {"a": 10.0}),
        ({"a": (1e308,), "b": (1e308,)}, {"a": 1.0, "b": 1.0}),
        ({"a": (1e308,), "b": (1e308,)}, {"a": 10.0, "b": -10.0}),
        ({"a": (1.0,)}, {"a": 1e200}),
    ],
)
def test_a_reward_beyond_the_range_names_what_it_is_made_of(scores, weights):
    with pytest.raises(UserError, match=r"is more than 1e\+150 \('a' .* x .*scale the rewards"):
        combine(scores, weights)


@pytest.mark.parametrize("value", [1e300, -1e308, 1e151, float("inf"), float("-inf"), float("nan"), 10**400])
def test_a_score_beyond_the_range_is_refused_where_it_is_returned(value):
    with pytest.raises(RewardFailure, match=r"a reward is a finite number of at most 1e\+150"):
        as_score(value, "mine", "?", "!")
    reward = resolve(RewardTable(use=lambda completion: value, name="mine"))
    with pytest.raises(RewardFailure, match="reward 'mine' returned"):
        score_group([reward], ScoringItem("?", ("a", "b")))
