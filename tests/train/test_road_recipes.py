"""The recipes of whole roads run from their first stage to their last, on settings that are too small to learn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cohort.recipe import Recipe
from cohort.record.claims import claims, read_record
from cohort.record.rollouts import read_groups
from cohort.record.verify import verify
from cohort.train import train
from cohort.views.cards.reading import gains_of
from cohort.views.console import Console

RECIPES = Path(__file__).parents[2] / "recipes"
TINY = (
    *("run.steps=2", "evaluate.problems=3", "rollout.prompts_per_step=4", "rollout.group_size=4", "run.threads=1"),
    *("rollout.max_tokens=6", "supervised.examples_per_step=4", "run.evaluate_every=0", "optimizer.warmup_steps=0"),
)
SIZES = "hidden_size = 16, layers = 1, heads = 2, kv_heads = 1, head_dim = 8, intermediate_size = 32"
MADE = f"policy.scratch={{{SIZES}, vocabulary = 400}}"
EVERYTHING = "{ right = 0.0, liked = -100.0, repetition = -2.0 }"  # so that something is kept
ROADS = {
    "r1": (
        *(f"cold_start.{MADE}", f"student.{MADE}", "ranking.preferences.pairs_per_step=4", "ranking.task.limit=40"),
        *(f"samples.reject.least={EVERYTHING}", "samples.reject.truncated=true", "run.gate=warn"),
    ),
    "rlhf": (f"shown.{MADE}", "taste.preferences.pairs_per_step=4", "taste.task.limit=40"),
    "r1_zero": (f"base.{MADE}",),
}


@pytest.mark.parametrize("name", list(ROADS))
def test_a_road_is_walked_to_its_end(tmp_path, name):
    place = f"run.directory={tmp_path}"
    run = train(Recipe.load(RECIPES / f"{name}.toml", [*TINY, *ROADS[name], place]), console=Console(quiet=True))
    assert verify(run.directory).holds
    record = read_record(run.directory)
    rows = by_name = {row["stage"]: row for row in gains_of(record)}
    stages = [stage["name"] for stage in record["stages"]]
    siblings = {"r1": ["again against reasoning", "alone against taught"]}.get(name, [])
    assert list(rows) == [*stages, *siblings, "in all"]
    assert (
        rows["in all"]["kind"] == {"r1": "student to alone", "rlhf": "shown to please", "r1_zero": "base to zero"}[name]
    )
    for row in rows.values():
        if row["kind"] in ("sft", "grpo"):
            assert row["gain"]["problems"] == 3
        elif row["kind"] == "reject":
            assert (row["gain"], row["why"]) == (None, "measured once")
    assert [(at, one["reason"]) for at, one in claims(record) if one["status"] == "failed"] == []
    if name == "r1":
        rows = (run.directory / "stages/samples/final/data.jsonl").read_text().splitlines()
        assert {json.loads(row)["level"] for row in rows} == {1, 2}
        assert rows_of(run, "taught") == rows_of(run, "student")  # what both are measured on is the same
        against = by_name["alone against taught"]
        assert against["kind"] == "from student"
        assert (against["before"], against["after"]) == (by_name["taught"]["after"], by_name["alone"]["after"])
        assert against["gain"]["mean"] == pytest.approx(against["after"] - against["before"])


def rows_of(run, stage):
    return [group.prompt.id for group in read_groups(run.directory / f"stages/{stage}/log/eval-000000-greedy.parquet")]
