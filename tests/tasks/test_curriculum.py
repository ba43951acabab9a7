"""Levels rise with the success rate, and go on exactly after a restore."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.settings import Curriculum
from cohort.tasks.order.pass_rates import Ladder
from cohort.types import UserError

RATES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


def climb(ladder, rates):
    """Feed rates of the current level; the levels that follow each."""
    found = []
    for rate in rates:
        ladder.observe(ladder.level, rate)
        found.append(ladder.level)
    return found


def test_a_level_rises_when_the_window_is_full_and_good_enough():
    ladder = Ladder((1, 2, 5), Curriculum(raise_at=0.75, window=4))
    assert climb(ladder, [1, 1, 1]) == [1, 1, 1]  # good, but three are no window
    assert climb(ladder, [0]) == [2]  # the mean of the four is 0.75
    assert climb(ladder, [1, 1, 1]) == [2, 2, 2]  # the new level's window starts empty
    assert climb(ladder, [1]) == [5]
    assert climb(ladder, [1] * 20) == [5] * 20  # there is nothing above the last


def test_the_window_slides():
    ladder = Ladder((1, 2), Curriculum(raise_at=1.0, window=3))
    assert climb(ladder, [0, 1, 1]) == [1, 1, 1]
    assert climb(ladder, [1]) == [2]  # the 0 has left the window


def test_a_level_falls_only_when_asked_to():
    stays = Ladder((1, 2), Curriculum(raise_at=0.5, window=2))
    falls = Ladder((1, 2), Curriculum(raise_at=0.5, lower_at=0.1, window=2))
    for ladder in (stays, falls):
        climb(ladder, [1, 1])
    assert climb(stays, [0, 0]) == [2, 2]
    assert climb(falls, [0, 0]) == [2, 1]
    assert climb(falls, [0, 0]) == [1, 1]  # there is nothing below the first


def test_rates_of_another_level_say_nothing_about_this_one():
    ladder = Ladder((1, 2), Curriculum(raise_at=0.5, window=2))
    climb(ladder, [1, 1])
    ladder.observe(1, 0.0)  # asked before the level rose
    assert list(ladder.recent) == []


@pytest.mark.parametrize("review", [0.1, 0.25, 0.5])
def test_review_is_the_share_of_easier_levels_in_turns(review):
    ladder = Ladder((1, 2, 3), Curriculum(window=1, raise_at=0.1, review=review))
    assert [ladder.next() for _ in range(50)] == [1] * 50  # the first level has no easier one
    climb(ladder, [1, 1])
    asked = [ladder.next() for _ in range(400)]
    easier = [level for level in asked if level < 3]
    assert len(easier) == pytest.approx(400 * review, abs=1)
    assert abs(easier.count(1) - easier.count(2)) <= 1


@settings(max_examples=100)
@given(rates=st.lists(RATES, max_size=60), cut=st.integers(0, 60), review=st.sampled_from([0.0, 0.3]))
def test_a_restored_ladder_goes_on_exactly(rates, cut, review):
    rules = Curriculum(raise_at=0.7, lower_at=0.2, window=3, review=review)
    whole, ladder = Ladder((1, 2, 3, 4), rules), Ladder((1, 2, 3, 4), rules)
    for number, rate in enumerate(rates):
        if number == cut:
            state = json.loads(json.dumps(ladder.state()))
            ladder = Ladder((1, 2, 3, 4), rules)
            ladder.restore(state)
        level = whole.next()
        assert ladder.next() == level
        whole.observe(level, rate)
        ladder.observe(level, rate)
    assert ladder.state() == whole.state()


@pytest.mark.parametrize(
    "wrong",
    [{"raise_at": 0.0}, {"raise_at": 1.1}, {"window": 0}, {"review": 1.0}, {"review": -0.1}, {"lower_at": 0.8}],
)
def test_rules_that_make_no_sense(wrong):
    with pytest.raises(UserError, match=rf"{next(iter(wrong))}\b.*{next(iter(wrong.values()))}"):
        Ladder((1, 2), Curriculum(**wrong))


def test_one_level_is_no_curriculum():
    with pytest.raises(UserError, match="two levels or more"):
        Ladder((3,), Curriculum())
