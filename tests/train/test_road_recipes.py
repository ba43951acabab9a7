"""The recipes of whole roads run from their first stage to their last, on settings that are too small to learn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cohort.recipe import Recipe
from cohort.record.claims import claims, read_record
from cohort.record.metrics import read_metrics
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
    "iterative": (
        *(f"base.{MADE}", "pairs_1.reward=random", "pairs_2.reward=random", "reject.truncated=true", "run.gate=warn"),
        *("preferences.pairs_per_step=2", "judge_1.task.held_out=0.4", "judge_2.task.held_out=0.4"),
    ),
    "process": (
        *(f"base.{MADE}", "samples.reject.least={ exact_number = 0.0 }", "reject.truncated=true", "run.gate=warn"),
        *("preferences.pairs_per_step=2", "judge.task.held_out=0.5"),
    ),
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
    siblings = {"r1": ["again against reasoning", "alone against taught"], "iterative": ["round_2 against stale"]}
    assert list(rows) == [*stages, *siblings.get(name, []), "in all"]
    ends = {
        "r1": "student to alone",
        "rlhf": "shown to please",
        "r1_zero": "base to zero",
        "iterative": "base to round_2",
        "process": "base to learner",
    }
    assert rows["in all"]["kind"] == ends[name]
    for row in rows.values():
        if row["kind"] in ("sft", "grpo"):
            assert row["gain"]["problems"] == 3
        elif row["kind"] == "reject":
            assert (row["gain"], row["why"]) == (None, "measured once")
    assert [(at, one["reason"]) for at, one in claims(record) if one["status"] == "failed"] == []
    if name == "iterative":
        walked_in_rounds(run.directory)
    if name == "r1":
        rows = (run.directory / "stages/samples/final/data.jsonl").read_text().splitlines()
        assert {json.loads(row)["level"] for row in rows} == {1, 2}
        assert rows_of(run, "taught") == rows_of(run, "student")  # what both are measured on is the same
        against = by_name["alone against taught"]
        assert against["kind"] == "from student"
        assert (against["before"], against["after"]) == (by_name["taught"]["after"], by_name["alone"]["after"])
        assert against["gain"]["mean"] == pytest.approx(against["after"] - against["before"])


def walked_in_rounds(run):
    """A reward model is trained on, on new pairs and some of the earlier ones; the reference is where a round began."""
    first, second = (load_file(run / f"stages/judge_{n}/final/model.safetensors") for n in (1, 2))
    assert first.keys() == second.keys()
    assert any(not torch.equal(first[key], second[key]) for key in first)
    data = next(one for one in read_record(run)["stages"] if one["name"] == "judge_2")["data"]["prompts"]["value"]
    assert {"name": "history", "source": "stage:pairs_1"} in [{k: v for k, v in row.items() if v} for row in data]
    for place in (run, run / "stages/stale", run / "stages/round_1"):
        line = read_metrics(place / "metrics.jsonl")[1]
        assert abs(line["policy/kl"]) < 1e-6  # k3 at the first step of a round


def rows_of(run, stage):
    return [group.prompt.id for group in read_groups(run.directory / f"stages/{stage}/log/eval-000000-greedy.parquet")]
