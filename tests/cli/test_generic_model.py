"""The commands on a model that takes the generic path, one that packed groups are wrong for."""

from __future__ import annotations

import json

import models_table
import pytest

pytestmark = pytest.mark.filterwarnings("ignore:.*takes the generic path")


@pytest.fixture
def bloom(desk, tokenizer):
    """Its positions are biases of the scores, which a packed row knows nothing of."""
    model = models_table.make("bloom", len(tokenizer))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(desk / "bloom")
    tokenizer.save_pretrained(desk / "bloom")
    return "policy.model=bloom"


def test_every_command_runs_it_and_says_what_its_path_costs(desk, bloom, cohort):
    code, out, err = cohort("explain", "recipe.toml", bloom)
    assert code == 0, err
    code, out, err = cohort("check", "recipe.toml", bloom)
    assert code == 0, err
    assert "generic path (" in out + err
    assert "learning: a prompt read again for every rollout" in " ".join((out + err).split())
    code, out, err = cohort("sample", "bloom", "What is 1 plus 2?", "--max-tokens", "8")
    assert code == 0, err
    code, out, err = cohort("train", "recipe.toml", bloom, "run.steps=1")
    assert code == 0, err
    for words in (["runs/mine"], ["runs/mine", "--against", "bloom"]):
        code, out, err = cohort("eval", *words, "--problems", "3", "--samples", "0", "--json")
        assert code == 0, err
    assert json.loads(out)["difference"]["greedy"]["problems"] == 3
    metrics = [json.loads(line) for line in (desk / "runs/mine/metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["step"] == 1
    assert abs(metrics[-1].get("policy/mismatch", 0.0)) < 1e-4
