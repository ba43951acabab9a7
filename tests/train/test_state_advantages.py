"""Turns that were taken in the same state are compared (GiGPO), in groups as a stage has them."""

from __future__ import annotations

import pytest

from cohort.algorithms.advantages import gigpo
from cohort.algorithms.objectives import preset
from cohort.rewards.combination import Combination
from cohort.train.grpo.advantages import with_state_advantages
from cohort.types import Group, Observation, Prompt, Rollout, Turn


def rollout(said):
    """Turns of two tokens, each answered with one token by what the environment `said`."""
    turns, mask = [], []
    for words in said:
        start = len(mask)
        mask += [True, True, False]
        turns.append(Turn(start, start + 2, "", Observation(({"role": "tool", "content": words},))))
    return Rollout((7,) * len(mask), tuple(mask), (-1.0,) * len(mask), 0, "stop", "", tuple(turns))


def test_a_turn_is_compared_with_those_that_answered_the_same_words():
    said, rewards = [["a", "b", "end"], ["a", "end"], ["c", "a", "b", "end"]], (1.0, 0.0, 0.5)
    group = Group(0, Prompt.make(text="?"), tuple(map(rollout, said)), {"r": rewards}, rewards, rewards)
    (done,) = with_state_advantages([group], preset("gigpo"), Combination({"r": 1.0}, {}))
    states = [["", *row[:-1]] for row in said]
    expected = gigpo([[0.0] * (len(row) - 1) + [r] for row, r in zip(said, rewards, strict=True)], states)
    for row, turns, tokens in zip(expected, said, done.token_advantages, strict=True):
        own = [tokens[3 * t + k] for t in range(len(turns)) for k in (0, 1)]
        assert own == pytest.approx([a for a in row.tolist() for _ in (0, 1)], abs=1e-12)
    assert done.disposition == "trained"
    assert done.advantages[0] == pytest.approx(sum(expected[0].tolist()) / 3)
