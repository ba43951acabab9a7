"""Prompts without signal rest, and come back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.settings import Adaptive
from cohort.tasks.order.pass_rates import Rests
from cohort.types import UserError


def visits(rests, rates, epochs):
    """The epochs in which prompt 7 is asked, when its visits go as `rates` says."""
    asked = []
    for epoch in range(epochs):
        if not rests.resting(7, epoch) and rates:
            asked.append(epoch)
            rests.observe(7, epoch, rates.pop(0))
    return asked


def test_rests_double_until_the_longest():
    rests = Rests(Adaptive(rest=1, longest_rest=8))
    assert visits(rests, [1.0] * 7, 60) == [0, 2, 5, 10, 19, 28, 37]  # 1, 2, 4, 8, 8, 8 epochs in between


def test_signal_wakes_a_prompt_for_good():
    rests = Rests(Adaptive())
    assert visits(rests, [0.0, 0.0, 0.5, 0.25, 0.0, 0.0], 20) == [0, 2, 5, 6, 7, 9]
    assert rests.visits[7].times == 2


def test_solved_and_hopeless_are_not_one_streak():
    rests = Rests(Adaptive())
    assert visits(rests, [0.0, 0.0, 1.0, 1.0], 20) == [0, 2, 5, 7]


def test_some_visits_before_the_first_rest():
    rests = Rests(Adaptive(after=3, rest=2))
    assert visits(rests, [1.0] * 5, 30) == [0, 1, 2, 5, 10]


def test_thresholds():
    rests = Rests(Adaptive(solved=0.75, hopeless=0.25))
    for index, rate in enumerate([0.0, 0.25, 0.26, 0.74, 0.75, 1.0]):
        rests.observe(index, 0, rate)
    assert [rests.resting(index, 1) for index in range(6)] == [True, True, False, False, True, True]
    assert rests.count(1) == 4
    assert rests.count(2) == 0


@settings(max_examples=80)
@given(
    events=st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.0, 0.5, 1.0])), max_size=40),
    cut=st.integers(0, 40),
)
def test_restored_rests_go_on_exactly(events, cut):
    rules = Adaptive(after=2, rest=2, longest_rest=5)
    whole, rests = Rests(rules), Rests(rules)
    for epoch, (index, rate) in enumerate(events):
        if epoch == cut:
            state = json.loads(json.dumps(rests.state()))
            rests = Rests(rules)
            rests.restore(state)
        assert rests.resting(index, epoch) == whole.resting(index, epoch)
        whole.observe(index, epoch, rate)
        rests.observe(index, epoch, rate)
    assert rests.state() == whole.state()


@pytest.mark.parametrize(
    "wrong",
    [
        {"solved": 0.0},
        {"solved": 1.5},
        {"hopeless": 1.0},
        {"after": 0},
        {"rest": 0},
        {"rest": 9},
        {"hopeless": 0.5, "solved": 0.5},
    ],
)
def test_rules_that_make_no_sense(wrong):
    with pytest.raises(UserError, match=rf"{next(iter(wrong))}\b.*{next(iter(wrong.values()))}"):
        Rests(Adaptive(**wrong))
