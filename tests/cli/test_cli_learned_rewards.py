"""Reward models, rewards of steps and judges as a person meets them."""

from __future__ import annotations

import json
import sys

import pytest

from cohort import cli
from judge_server import JudgeServer, verdict

KEY = "sk-secret-0815"
SCRATCH = (
    "policy.scratch = { hidden_size = 32, layers = 1, heads = 2, kv_heads = 1, head_dim = 16, intermediate_size = 64 }"
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A user's directory: data for every kind of stage, and a reward of steps."""
    rows = [{"prompt": f"Say {i}.", "answer": str(i), "chosen": f"{i} please", "rejected": "no"} for i in range(24)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "my_steps.py").write_text("def steps(steps):\n    return [len(step) for step in steps]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_steps", raising=False)
    return tmp_path


@pytest.fixture
def cohort(monkeypatch, capfd):
    """Run a command that must end with `code`; returns all that it said."""

    def run(*arguments, code=0):
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["cohort", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = "".join(capfd.readouterr())
        assert ended.value.code == code, said
        assert "Traceback" not in said
        return said

    return run


def recipe(where, text):
    (where / "recipe.toml").write_text(text)


GRPO = f"""
name = "r"
{SCRATCH}
task.source = "rows.jsonl"
evaluate.problems = 0
rollout = {{ prompts_per_step = 2, group_size = 3, max_tokens = 6 }}
optimizer.learning_rate = 1e-3
run = {{ steps = 2, threads = 1 }}
"""


def test_a_pipeline_with_its_own_reward_model(here, cohort):
    recipe(
        here,
        f"""
name = "r"
task.source = "rows.jsonl"
run = {{ steps = 2, threads = 1 }}
[[stage]]
kind = "reward_model"
name = "taste"
{SCRATCH}
task.held_out = 0.3
preferences.pairs_per_step = 4
[[stage]]
kind = "grpo"
{SCRATCH}
evaluate.problems = 0
rollout = {{ prompts_per_step = 2, group_size = 3, max_tokens = 6 }}
reward = [{{ use = "reward_model", args = {{ model = "stage:taste" }} }}]
""",
    )
    said = cohort("check", "recipe.toml")
    assert "Bradley-Terry" in said
    assert "reward_model is not tested: its model is made by the stage 'taste'" in said
    said = cohort("train", "recipe.toml")
    assert "held-out accuracy" in said
    assert "expected calibration error" in said
    assert (here / "runs/r/stages/taste/final/config.json").exists()
    assert "stage:taste" in (here / "runs/r/recipe.toml").read_text()


def test_explain_says_that_steps_are_supervised(here, cohort):
    recipe(here, GRPO + '[[reward]]\nuse = "my_steps:steps"\nsplit = "lines"\n')
    alone = cohort("explain", "recipe.toml")
    assert "steps: the scores of all steps of a group are normalised in one pool" in alone
    assert "in place of A above" in alone
    plain = cohort("explain", "recipe.toml", "reward=random")
    assert "in one pool" not in plain
    assert alone.split("hash")[-1].split()[0] != plain.split("hash")[-1].split()[0]
    cohort("train", "recipe.toml")
    metrics = [json.loads(line) for line in (here / "runs/r/metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["reward/steps/steps"] >= 1


def test_what_does_not_go_with_steps_is_said_before_anything_runs(here, cohort):
    recipe(here, GRPO + '[[reward]]\nuse = "my_steps:steps"\nsplit = "lines"\n')
    said = cohort("train", "recipe.toml", "objective.preset=rloo", code=1)
    assert "process supervision does not go with" in said
    assert not (here / "runs").exists()


def test_a_judge_trains_and_its_key_is_nowhere_on_disk(here, cohort, monkeypatch):
    server = JudgeServer(lambda texts, body: verdict(winner="A" if len(texts[1]) > len(texts[2]) else "B"))
    try:
        args = f'url = "{server.url}", model = "m", mode = "pairwise", api_key_env = "MY_KEY", cache = "judge.sqlite"'
        recipe(here, GRPO + f'[[reward]]\nuse = "judge"\nargs = {{ {args} }}\n')
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("MY_KEY", raising=False)
        missing = cohort("train", "recipe.toml", code=1)
        assert "set the environment variable MY_KEY" in missing
        monkeypatch.setenv("MY_KEY", KEY)
        cohort("train", "recipe.toml", "--resume")
    finally:
        server.close()
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert all(KEY.encode() not in file.read_bytes() for file in here.rglob("*") if file.is_file())
    metrics = [json.loads(line) for line in (here / "runs/r/metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["reward/judge/mean"] == pytest.approx(0.5)  # of a win rate, always
