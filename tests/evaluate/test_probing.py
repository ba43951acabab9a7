"""What a probe says of groups: against counting, against simulation, and what it advises."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest

from cohort.evaluate.probing import advise, differing, probe
from cohort.types import Finish, Group, Prompt, Rollout


def test_the_share_of_groups_that_differ_is_that_of_all_groups():
    scores = [0.0, 0.0, 1.0, 0.5, 1.0, 1.0]
    for size in range(1, 7):
        differ = sum(len(set(group)) > 1 for group in combinations(scores, size))
        assert differing(scores, size) == pytest.approx(differ / comb(6, size))
    with pytest.raises(ValueError, match="a group of 7 cannot be taken from 6 samples"):
        differing(scores, 7)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.9])
def test_of_few_samples_it_finds_what_the_formula_says(p):
    draws = np.random.default_rng(0).random((4000, 8)) < p
    found = np.mean([differing(list(row * 1.0), 8) for row in draws])
    truth = 1 - p**8 - (1 - p) ** 8
    assert found == pytest.approx(truth, abs=0.03)
    rates = draws.mean(1)
    plugged = np.mean(1 - rates**8 - (1 - rates) ** 8)
    assert abs(plugged - truth) > 1.3 * abs(found - truth)  # the formula at the measured rates is too low


def groups(rates, samples=16, tokens=20, levels=None, cut=0.0):
    draw = np.random.default_rng(1)
    made = []
    for number, rate in enumerate(rates):
        right = tuple(float(x) for x in (draw.random(samples) < rate))
        ends: list[Finish] = ["length" if draw.random() < cut else "stop" for _ in right]
        rollouts = tuple(
            Rollout([0] * tokens, [True] * tokens, [0.0] * tokens, 0, end, f"#### {number}") for end in ends
        )
        tags = {} if levels is None else {"level": levels[number]}
        made.append(Group(number, Prompt.make(text=str(number), tags=tags), rollouts, accuracy=right))
    return made


def test_the_temperature_with_signal_is_taken_and_of_equals_the_one_near_1():
    hard, fair = groups([0.01] * 40), groups([0.4] * 40)
    found = advise([probe(hard, 0.7, 16), probe(fair, 1.3, 16)], 64, finite=True)
    assert found.settings["rollout.temperature"] == 1.3
    found = advise([probe(fair, 0.7, 16), probe(fair, 1.0, 16), probe(fair, 1.3, 16)], 64, finite=True)
    assert found.settings == {"rollout.temperature": 1.0, "rollout.group_size": 4, "rollout.max_tokens": 32}
    assert not found.warning


def test_rare_answers_need_large_groups_and_prompts_without_signal_rest():
    one = probe(groups([0.1] * 30 + [0.0] * 30), 1.0, 16)
    found = advise([one], 64, finite=True)
    assert found.settings["rollout.group_size"] == 16
    assert found.settings["task.adaptive"] == {}
    assert one.histogram[0] >= 30
    assert sum(one.histogram) == 60


def test_levels_that_are_neither_solved_nor_hopeless():
    one = probe(groups([0.99] * 20 + [0.5] * 20 + [0.0] * 20, levels=[1] * 20 + [2] * 20 + [3] * 20), 1.0, 16)
    assert advise([one], 64, finite=False).settings["task.levels"] == [2]
    assert "task.levels" not in advise([one], 64, finite=True).settings


def test_completions_that_are_cut_off_want_more_tokens():
    found = advise([probe(groups([0.5] * 20, cut=0.3), 1.0, 16)], 24, finite=True)
    assert found.settings["rollout.max_tokens"] == 48


@pytest.mark.parametrize(("rate", "words"), [(0.0, "too hard"), (1.0, "too easy")])
def test_where_nothing_would_be_learnt_it_is_said(rate, words):
    assert words in advise([probe(groups([rate] * 60), 1.0, 16)], 64, finite=True).warning
