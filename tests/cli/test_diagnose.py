"""`cohort diagnose`, and a run that a detector pauses, as a person meets them."""

from __future__ import annotations

import json


def test_a_run_that_pays_nothing_is_paused_goes_on_and_is_diagnosed(desk, cohort):
    (desk / "my_rewards.py").write_text("def vowels(completion):\n    return 0.0\n")
    train = ("train", "recipe.toml", 'reward=["my_rewards:vowels"]', "run.steps=4", "run.gate=off")
    pausing = (*train, "monitor.action=pause", "rollout.max_tokens=3", "evaluate.problems=0")
    code, out, err = cohort(*pausing)
    assert code == 3, err
    assert "paused after step" in out + err
    assert "continue with" in out
    code, out, err = cohort(*pausing, "--resume")
    assert code in (0, 3), err
    code, out, err = cohort("diagnose", "runs/mine")
    assert code == 0, err
    assert "try " in out
    code, out, _ = cohort("diagnose", "runs/mine", "--json")
    (stage,) = json.loads(out)["stages"]
    assert {one["detector"] for one in stage["findings"]} & {"constant_reward", "truncation"}
    assert stage["causes"][0]["evidence"]
    assert isinstance(stage["questions"], dict)


def test_what_is_no_run_is_one_sentence(desk, cohort):
    code, out, err = cohort("diagnose", "base")
    assert (code, "is no run: there is no recipe.toml in it" in err) == (2, True), out + err
