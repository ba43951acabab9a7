"""More completions are begun than are kept: the shortest come back, whatever else is decoded beside them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cohort.engine.engine import Engine
from cohort.types import SampleRequest, Sampling


def shortest(completions, keep):
    order = sorted(range(len(completions)), key=lambda i: len(completions[i].tokens))
    return [completions[i] for i in sorted(order[:keep])]


@pytest.mark.parametrize("rows", [64, 7], ids=["together", "a few at a time"])
def test_the_shortest_of_a_group_come_back_and_the_others_are_cut(tiny_policy, rows):
    policy = tiny_policy
    policy.eos_ids = (1, *range(100, 180))  # tokens that end a completion: of so many some are likely
    requests = [SampleRequest(key, (5, 6, 7 + key), 6, key, Sampling(40, temperature=2.0)) for key in range(4)]
    whole = {one.key: found for one, found in Engine(policy).sample(requests)}
    engine = Engine(policy, rows)
    found = {one.key: kept for one, kept in engine.sample([replace(one, keep=4) for one in requests])}
    for key, kept in found.items():
        assert [list(one.tokens) for one in kept] == [list(one.tokens) for one in shortest(whole[key], 4)]
    assert engine.cut == 8
    longest = {key: max(len(one.tokens) for one in kept) for key, kept in found.items()}
    lengths = [sorted(len(one.tokens) for one in of) for of in whole.values()]
    assert any(row[4] > row[3] for row in lengths)  # there was something to cut
    assert engine.cut_tokens <= sum(sum(row[4:]) for row in lengths)
    assert engine.cut_tokens >= sum(2 * most for most in longest.values())
