"""`cohort train --dry-run`: the plan, the places and the time of a step, and nothing that a run leaves."""

from __future__ import annotations

import json

import pytest


@pytest.mark.timeout(120)
def test_a_dry_run_says_what_would_be_done_and_leaves_nothing(desk, cohort):
    before = sorted(desk.rglob("*"))
    code, out, _ = cohort("train", "recipe.toml", "--dry-run")
    assert code == 0
    assert "placement   all in this process, rewards in" in out
    assert "no run with the same policy has been measured here" in out
    assert [one for one in sorted(desk.rglob("*")) if "__pycache__" not in str(one)] == before
    # A run of the same policy is found, and its steps are played again with another batch.
    assert cohort("train", "recipe.toml", "run.steps=7", "evaluate.problems=0")[0] == 0
    code, out, _ = cohort("train", "recipe.toml", "--dry-run", "name=other", "rollout.group_size=30", "--json")
    (stage,) = json.loads(out)["stages"]
    expected = stage["expected"]
    assert code == 0
    assert expected["run"].endswith("mine")
    assert expected["how"].startswith("simulated in one process")
    assert expected["measured_s"] > 0
    assert expected["step_s"] > 0
    assert not (desk / "runs" / "other").exists()
    # What a run would stop at stops this as well.
    code, _, err = cohort("train", "recipe.toml", "--dry-run", "run.steps=7")
    assert code == 1
    assert "already holds a run" in err
    code, _, err = cohort("train", "recipe.toml", "--dry-run", "name=other", "--measured", "nowhere")
    assert code == 2
    assert "'nowhere' is no run" in err
    code, _, err = cohort("train", "recipe.toml", "--measured", "runs/mine")
    assert code == 2
    assert "--measured is for --dry-run" in err
