"""What a new user met at the doors: where data are found, what is said of a name that is not there, differences."""

from __future__ import annotations

import shutil
import sys

import pytest

import cohort as library
from cohort.types import UserError

SHORT = ("evaluate.problems=0", "run.gate=off", "rollout.prompts_per_step=1", "rollout.group_size=2")


def test_a_copied_run_goes_on_from_another_directory(desk, cohort, tmp_path, monkeypatch):
    code, _, err = cohort("train", "recipe.toml", *SHORT, "run.steps=2", "run.save_every=1")
    assert code == 0, err
    there = tmp_path / "elsewhere"
    shutil.copytree(desk / "runs/mine", there / "copy")
    shutil.rmtree(there / "copy/final")
    shutil.rmtree(there / "copy/checkpoints/step-000002")
    monkeypatch.chdir(there)
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(desk)])
    code, out, err = cohort("train", "copy", "--resume")
    assert code == 0, err
    assert f"in {desk}, where" in " ".join(out.split())
    assert (there / "copy/final/model.safetensors").exists()


def test_a_reward_of_a_program_is_not_looked_for_in_the_command(desk, cohort):
    with pytest.raises(UserError):
        library.train(model="base", data="train.jsonl", reward=lambda completion: None, name="lam", run={"steps": 1})
    code, _, err = cohort("train", "runs/lam", "--resume")
    assert code == 1
    assert "go on there with resume=True, or write it into a module" in err


def test_eval_takes_the_columns_of_a_file_as_init_does(desk, cohort):
    code, out, err = cohort("eval", "base", "--task", "train.jsonl", "--samples", 0, "--problems", 2)
    assert code == 0, err
    assert "questions in 'question'; answers in 'solution', numbers; the reward exact_number" in " ".join(out.split())
    (desk / "odd.jsonl").write_text('{"ask": "1+1?", "gold": "2"}\n')
    code, _, err = cohort("eval", "base", "--task", "odd.jsonl")
    assert code == 2
    assert "task.prompt" in err
    odd = ("eval", "base", "--task", "odd.jsonl", "task.prompt=ask", "--samples", 0)
    assert cohort(*odd)[0] == 0


def test_a_difference_is_all_that_is_shown_and_names_a_missing_part_once(desk, cohort):
    text = (desk / "recipe.toml").read_text()
    (desk / "other.toml").write_text(text.replace('model = "base"', 'model = "base"\nlora = { rank = 4 }'))
    _, out, _ = cohort("explain", "recipe.toml", 'reward=["exact_number"]', "--diff", "other.toml")
    assert "J(θ)" not in out
    rows = [line.split()[0] for line in out.splitlines() if line.startswith("  ") and "cohort config diff" not in line]
    assert rows == ["policy.lora", "reward.vowels", "reward.exact_number.weight", "optimizer.learning_rate"]
    assert "none here, rank 4 in other.toml" in out
    assert "none here, 1 x vowels in other.toml" in out


def test_a_model_that_is_not_there_is_said_by_init_and_in_one_sentence(desk, cohort):
    for command in (("init", "./no-such", "train.jsonl"), ("sample", "./no-such", "hi")):
        code, out, err = cohort(*command)
        assert (code, out) == (2, "")
        assert "there is no directory './no-such'" in err


def test_the_plan_says_whether_an_adapter_is_new(desk, cohort):
    code, out, err = cohort("train", "recipe.toml", *SHORT, "policy.lora={rank=4}", "run.steps=1", "name=a")
    assert code == 0, err
    assert "LoRA of rank 4, new" in " ".join(out.split())
    go_on = ("policy.model=runs/a", "policy.lora={rank=4}", "run.steps=1", "name=b", "optimizer.learning_rate=0.1")
    code, out, err = cohort("train", "recipe.toml", *SHORT, *go_on)
    assert code == 0, err
    assert "LoRA of rank 4, " in " ".join(out.split())
