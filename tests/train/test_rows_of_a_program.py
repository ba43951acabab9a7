"""Rows of a program as task.source of a recipe: kept in the run, which resumes; and verl's rows and configuration."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from vowels import share_of_vowels

import cohort
from cohort.commands.config_import import import_recipe
from cohort.recipe import Recipe
from cohort.record.metrics import is_timing
from cohort.views.console import Console

ROWS = [{"prompt": f"What is {i} plus {i + 1}?", "answer": str(2 * i + 1)} for i in range(12)]
TEST = [{"prompt": f"What is {i} minus {i}?", "answer": "0"} for i in range(5)]
SHORT: dict[str, Any] = {
    "rollout": {"prompts_per_step": 3, "group_size": 2, "max_tokens": 6},
    "run": {"steps": 2, "threads": 1, "gate": "off"},
}


@pytest.fixture
def start(tmp_path, monkeypatch, checkpoint_dir):
    monkeypatch.chdir(tmp_path)

    def call(task, resume=False, **tables):
        given = {"name": "r", "policy": {"model": str(checkpoint_dir)}, "reward": share_of_vowels, **SHORT, **tables}
        return cohort.train(Recipe(task=task, **given), resume=resume, console=Console(quiet=True))

    return call


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def numbers(run):
    return [{key: value for key, value in line.items() if not is_timing(key)} for line in run.metrics]


@pytest.mark.parametrize("kind", ["list", "generator", "dataset", "splits"])
def test_a_recipe_with_rows_trains_and_resumes_as_one_with_a_file(start, tmp_path, kind):
    def task(rows=ROWS):
        made = datasets.Dataset.from_list(rows)
        if kind == "splits":
            splits = datasets.DatasetDict(train=made, test=datasets.Dataset.from_list(TEST))
            return {"source": splits, "held_out_split": "test"}
        source = {"list": rows, "generator": (row for row in rows), "dataset": made}[kind]
        return {"source": source, "held_out": iter(TEST)}

    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TEST))
    longer = {"run": {**SHORT["run"], "steps": 3}}
    of_files = start({"source": "a.jsonl", "held_out": "b.jsonl"}, name="files", **longer)
    run = start(task())
    kept = Recipe.load(run.directory / "recipe.toml").stages[0].task
    assert (kept.source, kept.held_out) == ("runs/r/data.jsonl", "runs/r/data-2.jsonl")
    assert (lines(kept.source), lines(kept.held_out)) == (ROWS, TEST)
    resumed = numbers(start(task(), resume=True, **longer))
    assert (resumed[1], resumed[-1]) == (numbers(of_files)[1], numbers(of_files)[-1])  # step 2 was the last one once
    with pytest.raises(cohort.UserError, match="other rows than those that the run began with"):
        start(task(ROWS[:-1]), resume=True, **longer)
    with pytest.raises(cohort.UserError, match="already holds a run"):
        start(task())


def test_stages_and_mixtures_share_rows_and_splits_that_are_none_are_refused(start):
    run = start({"mixture": {"a": {"source": ROWS}, "b": {"source": TEST, "held_out": 0.4}}})
    tables = Recipe.load(run.directory / "recipe.toml").stages[0].task.mixture
    assert [Path(table.source).name for table in tables.values()] == ["data.jsonl", "data-2.jsonl"]
    with pytest.raises(cohort.UserError, match=r"names a split, and the rows that were given have none"):
        start({"source": ROWS, "held_out_split": "test"}, name="other")
    assert not Path("runs/other").exists()
    row = {"prompt": "a", "completion": "b"}
    stages = [{"kind": "sft", "supervised": {"examples_per_step": 1}, "run": {"steps": 1}}] * 2
    shared = start(
        {"source": [row]}, name="two", stage=stages, reward=[], run={"threads": 1, "gate": "off"}, rollout={}
    )
    assert [path.name for path in sorted(shared.directory.glob("data*"))] == ["data.jsonl"]


def test_an_imported_verl_configuration_trains_on_verls_parquet_files(tmp_path, monkeypatch, checkpoint_dir):
    monkeypatch.chdir(tmp_path)
    rows = [
        {
            "data_source": "openai/gsm8k",
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "reward_model": {"style": "rule", "ground_truth": row["answer"]},
            "extra_info": {"index": number, "split": "train"},
        }
        for number, row in enumerate(ROWS)
    ]
    datasets.Dataset.from_list(rows).to_parquet("train.parquet")
    verl = {
        "actor_rollout_ref": {
            "model": {"path": str(checkpoint_dir)},
            "actor": {"ppo_mini_batch_size": 4, "optim": {"lr": 1e-4}},
            "rollout": {"n": 2},
        },
        "algorithm": {"adv_estimator": "grpo"},
        "data": {
            "train_files": "train.parquet",
            "train_batch_size": 4,
            "max_prompt_length": 64,
            "max_response_length": 8,
        },
        "trainer": {"total_training_steps": 1, "logger": ["console"]},
    }
    Path("verl.yaml").write_text(yaml.safe_dump(verl))
    tables = tomllib.loads(import_recipe(Path("verl.yaml")).recipe)
    tables["run"] |= {"gate": "off", "threads": 1}
    tables["task"]["template"] = "none"
    run = cohort.train(Recipe.from_tables({**tables, "reward": ["exact_number"]}), console=Console(quiet=True))
    assert run.metrics[-1]["step"] == 1


def test_a_finished_run_of_a_notebook_is_shown_and_needs_no_reward(start, capsys):
    run = start({"source": ROWS}, reward=lambda completion: float(len(completion)))
    kept = Recipe.load(run.directory / "recipe.toml")
    again = cohort.train(kept, resume=True, console=Console())
    assert again.final == run.final
    assert "is finished already" in capsys.readouterr().out
    longer = Recipe.load(run.directory / "recipe.toml", ["run.steps=3"])
    with pytest.raises(cohort.UserError, match="of the program or notebook that began the run"):
        cohort.train(longer, resume=True, console=Console(quiet=True))
