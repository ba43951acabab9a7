"""`cohort probe`: what it says is what training then shows."""

from __future__ import annotations

import json
import tomllib

import pytest

from cohort.recipe import Recipe

SHORT = ("--samples", 8, "--problems", 16)
LETTER = 'def has_an_e(completion):\n    return float("e" in completion)\n'
FROZEN = ("optimizer.learning_rate=0", "run.steps=8", "run.gate=off", "evaluate.problems=0", "objective.preset=grpo")


def test_a_probe_says_what_training_then_shows(desk, cohort):
    (desk / "my_letters.py").write_text(LETTER)
    own = ("reward=my_letters:has_an_e", "evaluate.reward=my_letters:has_an_e", "rollout.group_size=4")
    code, out, err = cohort("probe", "recipe.toml", *own, *SHORT, "--temperatures", "1.0", "--json")
    assert code == 0, err
    found = json.loads(out)
    (one,) = found["probes"]
    signal = one["signal"]["4"]
    code, _, err = cohort("train", "recipe.toml", *own, *FROZEN)
    assert code == 0, err
    lines = [json.loads(line) for line in (desk / "runs/mine/metrics.jsonl").read_text().splitlines()]
    seen = [line["groups/signal"] for line in lines if line["step"]]
    assert signal["low"] - 0.1 <= sum(seen) / len(seen) <= signal["high"] + 0.1
    assert 0.05 < signal["mean"] < 0.99


def test_its_advice_is_a_part_of_a_recipe_and_a_line_of_overrides(desk, cohort):
    code, out, err = cohort("probe", "recipe.toml", *SHORT, "--temperatures", "0.8,1.2", "--json")
    assert code == 0, err
    found = json.loads(out)
    whole = Recipe.load(desk / "recipe.toml", found["overrides"])
    assert whole.stages[0].rollout.temperature == found["advice"]["settings"]["rollout.temperature"]
    code, out, err = cohort("probe", "recipe.toml", *SHORT, "--temperatures", "1.0")
    assert "groups that would carry signal" in err
    tables, part = tomllib.loads((desk / "recipe.toml").read_text()), tomllib.loads(out)
    merged = {
        key: {**value, **part.get(key, {})} if isinstance(value, dict) else value for key, value in tables.items()
    }
    assert set(part) <= set(tables)
    assert Recipe.from_tables(merged).stages[0].rollout.group_size == part["rollout"]["group_size"]


def test_a_model_and_a_task(desk, cohort):
    words = ("task.prompt=question", "task.answer=solution", "rollout.max_tokens=8", *SHORT)
    code, out, err = cohort("probe", "base", "train.jsonl", *words, "--temperatures", "1.0")
    assert code == 0, err
    assert "too hard" in err  # a model that has learnt nothing
    assert "[rollout]" in out
    few = ("rollout.max_tokens=8", "--samples", 4, "--problems", 3, "--temperatures", "1.0", "--json")
    code, out, err = cohort("probe", "base", "word_problems", *few)  # problems without end
    assert code == 0, err
    assert len(json.loads(out)["probes"]) == 1


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("base",), "say a task as well", 2),
        (("recipe.toml", "--temperatures", "hot"), "numbers above 0", 2),
        (("recipe.toml", "policy.scratch={}"), "yet to be made", 1),
    ],
)
def test_what_cannot_be_probed_is_said(desk, cohort, words, said, code):
    found, _, err = cohort("probe", *words)
    assert (found, said in err) == (code, True), err
