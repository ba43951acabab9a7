"""What a repetition gives: the levels, the reasons, and that a run which is said to be bit-equal is."""

from __future__ import annotations

import pytest

from cohort.preflight.determinism import as_it_went, determinism
from cohort.recipe import Recipe

BASE = {"policy": {"model": "any"}, "task": {"source": "rows.jsonl"}, "reward": ["exact_number"]}
IN_FLIGHT = {
    "rollout": {"max_staleness": 1, "in_flight": "keep"},
    "objective": {"bypass": True},
    "cluster": {"address": "local"},
}


@pytest.mark.parametrize(
    ("changes", "device", "level", "why"),
    [
        ({}, "cpu", "bit-equal", ""),
        ({"rollout": {"max_staleness": 1, "over_sample": 2}}, "cpu", "bit-equal", ""),
        ({}, "cuda:0", "statistical", "cuda adds numbers"),
        ({"rollout": {"sampler": "vllm", "vllm": {"url": "http://x"}}}, "cpu", "statistical", "what vllm draws"),
        ({"rollout": {"sampler": "mine:sampler"}}, "cpu", "statistical", "what mine:sampler draws"),
        ({"environment": {"tools": ["http"]}}, "cpu", "statistical", "the tool http"),
        ({"cluster": {"address": "local", "learners": 2}}, "cpu", "batch-invariant", "2 learners"),
        ({"cluster": {"address": "local"}}, "cpu", "bit-equal", ""),
        (IN_FLIGHT, "cpu", "statistical", "between which tokens new weights come"),
    ],
)
def test_levels(changes, device, level, why):
    found = determinism(Recipe(**BASE | changes).stages[0], device)
    assert found.level == level
    assert found.why.startswith(why)
    assert str(found).startswith(f"{level}: ")


def test_memory_that_ran_out_lowers_the_level():
    steps: list[dict[str, float]] = [{"step": 1}, {"step": 2, "memory/tokens_at_once": 512.0}]
    assert as_it_went("bit-equal", steps[:1]) == "bit-equal"
    assert as_it_went("bit-equal", steps) == "batch-invariant"
    assert as_it_went("statistical", steps) == "statistical"
