"""Curricula, adaptive sampling and mixtures as a recipe says them."""

from __future__ import annotations

import tomllib

import pytest

from cohort.recipe import Recipe, differences, digest, to_toml
from cohort.train.grpo import Grpo
from cohort.types import UserError
from cohort.views.plan import task_line

BASE = {"policy": {"scratch": {}}, "reward": "exact_number"}
MIXED = {
    "template": "none",
    "mixture": {
        "easy": {"source": "word_problems", "levels": [1], "weight": 2},
        "hard": {"source": "word_problems", "levels": [4, 5], "weight": {"0": 1, "50": 3}, "curriculum": {"window": 8}},
    },
}


def recipe(task, overrides=(), **tables):
    return Recipe.from_tables({**BASE, "task": task, **tables}, overrides)


def refused(task, overrides=(), **tables) -> str:
    with pytest.raises(UserError) as caught:
        recipe(task, overrides, **tables)
    return str(caught.value)


def test_a_mixture_is_written_and_read_back():
    first = recipe(MIXED)
    text = to_toml(first)
    assert "[task.mixture.hard.curriculum]" in text
    assert "weight = { 0 = 1.0, 50 = 3.0 }" in text
    again = Recipe.from_tables(tomllib.loads(text))
    assert again == first
    assert digest(again) == digest(first)
    assert first.stages[0].task.source == "mixture"
    assert first.origins["task.mixture.easy.weight"] == "python"
    assert first.origins["task.mixture.easy.split"] == "default"
    assert Recipe.from_tables(tomllib.loads(to_toml(first, origins=True))) == first


def test_overrides_reach_into_a_mixture():
    changed = recipe(
        MIXED, ["task.mixture.easy.weight=7", "task.mixture.hard.curriculum.window=4", "task.template=r1_zero"]
    )
    sources = changed.stages[0].task.mixture
    assert (sources["easy"].weight, sources["hard"].curriculum.window) == (7, 4)
    assert {path for path, _, _ in differences(recipe(MIXED), changed)} == {
        *("task.mixture.easy.weight", "task.mixture.hard.curriculum.window", "task.template")
    }
    added = recipe(MIXED, ["task.mixture.third.source=word_problems"])
    assert list(added.stages[0].task.mixture) == ["easy", "hard", "third"]


def test_a_stage_changes_the_mixture_by_name_and_a_source_replaces_it():
    stages = [
        {"name": "one"},
        {"name": "two", "task": {"mixture": {"easy": {"weight": 0.5}, "new": {"source": "word_problems"}}}},
        {"name": "three", "task": {"source": "word_problems"}},
    ]
    made = recipe(MIXED, stage=stages)
    one, two, three = (stage.task for stage in made.stages)
    assert (one.mixture["easy"].weight, two.mixture["easy"].weight) == (2, 0.5)
    assert list(two.mixture) == ["easy", "hard", "new"]
    assert (three.source, three.mixture) == ("word_problems", {})
    back = Recipe.from_tables(
        {**BASE, "task": {"source": "word_problems"}, "stage": [{"name": "a"}, {"name": "b", "task": MIXED}]}
    )
    assert [stage.task.source for stage in back.stages] == ["word_problems", "mixture"]


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({"mixture": {"a": {}}}, "task.mixture.a.source is missing: give word_problems"),
        ({"mixture": {"a": {"sorce": "word_problems"}}}, "unknown key 'task.mixture.a.sorce'; did you mean"),
        ({"mixture": {"a": {"source": "x", "wieght": 1}}}, "did you mean 'task.mixture.a.weight'?"),
        ({"mixture": {"a": {"source": "x", "weight": -1}}}, "task.mixture.a.weight must be"),
        ({"mixture": {"a": {"source": "x", "weight": {"soon": 1}}}}, "'soon' is no step"),
        ({"mixture": {"a.b": {"source": "x"}}}, "a name in it is made of letters, digits, '-' and '_', not 'a.b'"),
        ({"mixture": ["word_problems"]}, "task.mixture must be tables by name, not ['word_problems']"),
        ({"mixture": {"a": "word_problems"}}, "task.mixture.a must be a table"),
        ({"mixture": {"a": {"source": "mixture"}}}, "mixtures do not nest"),
        ({"source": "x", "mixture": {"a": {"source": "x"}}}, "task has both 'source' and 'mixture'"),
        ({"source": "mixture"}, "no [task.mixture.NAME] table is there: name a source"),
        ({"mixture": {"a": {"source": "x"}}, "levels": [1]}, "task.levels has no effect beside a mixture"),
        ({"source": "word_problems", "curriculum": {"raise": 1}}, "unknown key 'task.curriculum.raise'; did you mean"),
        ({"source": "word_problems", "curriculum": {"window": 0}}, "task.curriculum.window must be a whole number"),
        ({"source": "word_problems", "adaptive": {"rest": 0}}, "task.adaptive.rest must be a whole number"),
        ({"source": "word_problems", "args": {"x": None}}, "task.args.x holds nothing"),
        ({}, "task.source is missing: give word_problems"),
    ],
)
def test_what_a_recipe_is_told(task, says):
    assert says in refused(task)


def test_supervised_stages_have_no_mixture():
    message = refused(MIXED, kind="sft")
    assert "task.mixture is for grpo stages, and this one is sft: remove it" in message
    curriculum = {"source": "word_problems", "curriculum": {}}
    assert "task.curriculum is for grpo stages" in refused(curriculum, kind="sft")


def test_what_only_the_sources_know_is_said_before_a_model_loads():
    stage = recipe({"source": "word_problems", "adaptive": {}}).stages[0]
    with pytest.raises(UserError, match=r"has no end: keep the first N with limit = N"):
        Grpo().prepare(stage, 0)
    stage = recipe({"source": "word_problems", "curriculum": {"lower_at": 0.9}}).stages[0]
    with pytest.raises(UserError, match=r"lower_at \(0.9\) must be below raise_at \(0.8\)"):
        Grpo().prepare(stage, 0)
    parts = Grpo().prepare(recipe(MIXED).stages[0], 0).parts
    assert parts.task.columns[-1] == "domain"


def test_rewards_are_routed_by_domain():
    rewards = [{"use": "exact_number", "when": {"domain": "easy"}}, {"use": "think_format", "when": {"domain": "hard"}}]
    Grpo().prepare(recipe(MIXED, reward=rewards).stages[0], 0)
    wrong = [{"use": "exact_number", "when": {"domian": "easy"}}]
    with pytest.raises(UserError, match=r"did you mean 'domain'"):
        Grpo().prepare(recipe(MIXED, reward=wrong).stages[0], 0)


def test_the_plan_says_where_prompts_come_from():
    assert task_line(recipe(MIXED).stages[0], None) == (
        "easy (word_problems; 2) + hard (word_problems; 1 from step 0, 3 from step 50; curriculum)"
    )
    alone = recipe({"source": "word_problems", "curriculum": {}}).stages[0]
    assert task_line(alone, None) == "word_problems, unlimited training prompts, curriculum"
