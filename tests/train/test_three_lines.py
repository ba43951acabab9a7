"""`cohort.train(model=..., data=..., reward=...)`: a recipe made of what was given, a run that resumes."""

from __future__ import annotations

import io
import json
from typing import Any

import datasets
import numpy as np
import pytest
from vowels import share_of_vowels

import cohort
from cohort.recipe import Recipe
from cohort.record.metrics import is_timing
from cohort.types import UserError
from cohort.views.console import Console

ROWS = [{"question": f"What is {i} plus {i + 1}?", "solution": str(2 * i + 1)} for i in range(12)]
SHORT: dict[str, Any] = {
    "rollout": {"prompts_per_step": 3, "group_size": 2, "max_tokens": 6},
    "run": {"steps": 2, "threads": 1, "gate": "off"},
}


@pytest.fixture
def start(tmp_path, monkeypatch, checkpoint_dir):
    """Train in a directory of one's own; returns the run and what was said."""
    monkeypatch.chdir(tmp_path)

    def call(data, **arguments):
        text = io.StringIO()
        given = {"model": str(checkpoint_dir), "reward": share_of_vowels, **SHORT, **arguments}
        return cohort.train(data=data, console=Console(file=text, width=200), **given), text.getvalue()

    return call


def refused(start, *arguments, **changes):
    with pytest.raises(cohort.UserError) as caught:
        start(*arguments, **changes)
    return str(caught.value)


def numbers(run):
    return [{key: value for key, value in line.items() if not is_timing(key)} for line in run.metrics]


def test_a_file_a_model_and_a_function(start, tmp_path):
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    run, said = start("mine.jsonl")
    assert str(run.directory) == "runs/base"
    assert "questions in 'question'; answers in 'solution', numbers" in said
    assert "the reward" not in said.partition("policy")[0]
    kept = Recipe.load(run.directory / "recipe.toml")
    assert kept.stages[0].task.source == "mine.jsonl"
    assert kept.stages[0].optimizer.learning_rate == Recipe(**minimal()).stages[0].optimizer.learning_rate
    assert not (run.directory / "data.jsonl").exists()
    again, _ = start("mine.jsonl")
    assert str(again.directory) == "runs/base-2"
    assert numbers(again) == numbers(run)


def minimal():
    return {"policy": {"model": "m"}, "task": {"source": "x.jsonl"}, "reward": "exact_number"}


@pytest.mark.parametrize("kind", ["list", "generator", "dataset", "splits"])
def test_rows_are_kept_in_the_run(start, kind):
    made = datasets.Dataset.from_list(ROWS)
    data = {"list": ROWS, "generator": (row for row in ROWS), "dataset": made, "splits": {"train": made}}[kind]
    if kind == "splits":
        data = datasets.DatasetDict(data)
    run, _ = start(data)
    kept = [json.loads(line) for line in (run.directory / "data.jsonl").read_text().splitlines()]
    assert kept == ROWS
    assert Recipe.load(run.directory / "recipe.toml").stages[0].task.source == "runs/base/data.jsonl"
    inputs = json.loads((run.directory / "environment.json").read_text())["inputs"]
    assert len(inputs["runs/base/data.jsonl"]) == 32


def test_a_run_of_rows_resumes(start, tmp_path):
    longer = {**SHORT["run"], "steps": 4}
    whole, _ = start(ROWS, name="whole", run=longer)
    part, _ = start(ROWS, name="part")
    # From the file that the run kept, as `cohort train runs/part --resume` does it; then with the same rows.
    recipe = Recipe.load(part.directory / "recipe.toml", ["run.steps=3"])
    assert len(cohort.train(recipe, resume=True, console=Console(quiet=True)).metrics) == len(whole.metrics) - 1
    resumed, _ = start(iter(ROWS), name="part", run=longer, resume=True)
    assert numbers(resumed) == numbers(whole)
    said = refused(start, ROWS[:-1], name="part", run=longer, resume=True)
    assert "other rows than those that the run began with" in said
    assert "already holds a run" in refused(start, ROWS[:-1], name="part")
    assert len((part.directory / "data.jsonl").read_text().splitlines()) == len(ROWS)


def test_to_resume_is_to_go_on_with_the_newest(start):
    first, _ = start(ROWS, resume=True)
    second, _ = start(ROWS)
    assert [run.directory.name for run in (first, second)] == ["base", "base-2"]
    again, _ = start(ROWS, resume=True)
    assert again.directory.name == "base-2"


def test_a_start_that_fails_takes_no_name(start):
    assert "group_size" in refused(start, ROWS, rollout={"group_size": 1})
    assert "fewer than one step" in refused(start, ROWS, rollout={"prompts_per_step": 50})
    run, _ = start(ROWS)
    assert run.directory.name == "base"


def test_a_model_object(start, small_model, tokenizer):
    run, _ = start(ROWS, model=small_model, tokenizer=tokenizer)
    assert run.directory.name == type(small_model).__name__
    assert (run.final / "model.safetensors").exists()
    assert "needs its tokenizer" in refused(start, ROWS, model=small_model)


def test_without_a_reward_the_answers_choose(start):
    run, said = start(ROWS, reward=None, seed=3)
    assert "the reward exact_number, as the answers are numbers" in said
    recipe = Recipe.load(run.directory / "recipe.toml")
    assert [reward.name for reward in recipe.stages[0].reward] == ["exact_number"]
    assert recipe.seed == 3


def test_demonstrations_make_a_supervised_stage(start):
    rows = [{"prompt": row["question"], "completion": row["solution"]} for row in ROWS]
    run, said = start(rows, reward=None, rollout={}, supervised={"examples_per_step": 4})
    assert "demonstrations in 'completion'" in said
    assert Recipe.load(run.directory / "recipe.toml").stages[0].kind == "sft"


def test_values_of_numpy_and_dates(start):
    import datetime

    rows = [row | {"size": np.int64(3), "of": np.ones(2), "day": datetime.date(2020, 1, 2)} for row in ROWS]
    run, _ = start(rows)
    kept = json.loads((run.directory / "data.jsonl").read_text().splitlines()[0])
    assert (kept["size"], kept["of"], kept["day"]) == (3, [1.0, 1.0], "2020-01-02")


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown keyword": ({"rollot": {}}, r"did you mean 'rollout'"),
    "a keyword of another library": ({"num_generations": 4}, r"rollout.group_size"),
    "a key of a table": ({"run": {"step": 3}}, r"run.steps"),
    "a name that is no directory": ({"name": "a/b"}, r"cannot name a directory"),
    "the model twice": ({"policy": {"model": "x"}}, r"model and policy.model say the same"),
    "the data twice": ({"task": {"source": "x"}}, r"data and task.source say the same"),
    "no question": ({"data": [{"text": "a"}]}, r"no column is called messages"),
    "no rows": ({"data": []}, r"no rows"),
    "rows that are no dicts": ({"data": ["a", "b"]}, r"row 1 of data is 'a'"),
    "one dict": ({"data": {"question": ["a"]}}, r"not dict"),
    "a number": ({"data": 3}, r"not int"),
    "a value that is no data": (
        {"data": [{"question": "a", "answer": object()}] * 3},
        r"row 1 holds <object",
    ),
    "keys that are no text": (
        {"data": [{"question": "a", "answer": {(1, 2): 3}}] * 3},
        r"row 1 cannot be written as JSON",
    ),
    "a table that is none": ({"task": "x"}, r"task is a table, such as .*, not 'x'"),
    "a model that is none": ({"model": 3}, r"model is a hub id, a directory, or a model object .* not 3"),
    "no model": ({"model": None}, r"policy.model is missing"),
    "a missing file": ({"data": "nothing.jsonl"}, r"nothing.jsonl does not exist"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_sentences(start, tmp_path, case):
    import re

    changes, hint = MISTAKES[case]
    arguments = {"data": ROWS, **changes}
    said = refused(start, arguments.pop("data"), **arguments)
    assert re.search(hint, said), said
    assert not list(tmp_path.glob("runs/*/metrics.jsonl"))


def test_what_does_not_go_beside_a_recipe(tmp_path):
    recipe = Recipe(**minimal())
    for given in ({"data": ROWS}, {"reward": share_of_vowels}, {"run": {"steps": 3}}, {"model": "base"}):
        with pytest.raises(cohort.UserError, match=f"the recipe says its {next(iter(given))} itself"):
            cohort.train(recipe, **given)
    with pytest.raises(cohort.UserError, match=r"takes a Recipe, not str: cohort.Recipe.load"):
        cohort.train("mine.toml")  # type: ignore[arg-type]


def test_a_model_beside_a_recipe_that_names_another_is_refused(tmp_path, small_model, tokenizer):
    recipe = Recipe(**minimal())
    with pytest.raises(UserError, match=r"names its model itself, policy.model = .* would not be used"):
        cohort.train(recipe, model=small_model, tokenizer=tokenizer)
    with pytest.raises(UserError, match="tokenizer is for a model object"):
        cohort.train(recipe, tokenizer=tokenizer)
    with pytest.raises(UserError, match="tokenizer is for a model object"):
        cohort.train(model=str(tmp_path), data="word_problems", tokenizer=tokenizer)


def test_the_function_shows_its_arguments():
    import inspect

    import cohort.train

    assert list(inspect.signature(cohort.train).parameters)[:4] == ["recipe", "model", "data", "reward"]
