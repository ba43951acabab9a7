"""`cohort replay` and `cohort train --from`, as a person uses them."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq


def test_a_step_is_shown_and_recomputed(desk, cohort):
    assert cohort("train", "recipe.toml", "run.save_every=1")[0] == 0
    code, out, err = cohort("replay", "runs/mine", "--step", 2, "--group", 5)
    assert code == 0, err
    assert "step 2, ticket 5" in out
    assert "step 2, ticket 4" not in out
    assert "member 2" in out
    assert "level 2  holds    reward vowels  scores, recomputed from the text: 3, all equal" in out
    assert "level 3  holds    advantages  advantages, recomputed from the rewards: 3, all equal" in out
    assert "level 4 holds step 2" in " ".join(out.split())
    assert "all of it holds" in out

    file = desk / "runs/mine/log/step-000002.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[4]["scores"] = json.dumps({**json.loads(rows[4]["scores"]), "vowels": 0.875})
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(file)), file)
    code, out, err = cohort("replay", "runs/mine", "--step", 2, "--json")
    found = json.loads(out)
    assert (code, found["holds"], found["step"], found["stage"]) == (1, False, 2, "grpo")
    assert len(found["rollouts"]) == 12
    failed = {check["name"]: check["detail"] for check in found["checks"] if check["status"] == "failed"}
    assert "ticket 5, member 1: scores.vowels is 0.875, and comes to" in failed["reward vowels"]
    assert cohort("replay", "runs/mine", "--step", 2, "--group", 4)[0] == 0  # the step's other groups are as they were

    (desk / "my_rewards.py").write_text("def vowels(completion):\n    return 0.5 * len(completion)\n")
    import sys

    sys.modules.pop("my_rewards")
    code, out, err = cohort("replay", "runs/mine", "--step", 1)
    assert code == 1
    assert "the source of reward vowels of stage grpo is not that which the run recorded" in " ".join(out.split())


def test_learning_again_and_a_fork(desk, cohort):
    assert cohort("train", "recipe.toml", "run.save_every=1")[0] == 0
    code, out, err = cohort("replay", "runs/mine", "--from", 0, "--learn-only")
    assert code == 0, out + err
    assert "the same" in out
    assert "bit for bit" in out
    assert (desk / "runs/mine-from-0/final").is_dir()
    code, out, err = cohort(
        "replay", "runs/mine", "--from", 0, "--learn-only", "--steps", "2..2", "--to", "one", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["same"] is None
    assert json.loads(out)["directory"] == str(desk / "one")
    code, out, err = cohort(
        "train", "recipe.toml", "--from", "runs/mine@1", "name=fork", "optimizer.learning_rate=1e-5"
    )
    assert code == 0, err
    assert "optimizer.learning_rate was" in out
    assert "begins from" in out
    assert cohort("replay", "runs/fork", "--step", 2)[0] == 0


def test_what_is_wrong_is_said(desk, cohort):
    assert cohort("train", "recipe.toml")[0] == 0
    for words, said, code in (
        (["runs/mine"], "give --step N; or --from N with --learn-only", 2),
        (["runs/mine", "--from", 0], "give --step N; or --from N with --learn-only", 2),
        (["runs/mine", "--step", 1, "--steps", "1..2"], "--steps and --to go with --from", 2),
        (["runs/mine", "--from", 0, "--learn-only", "--steps", "two"], "--steps is A..B", 2),
        (["runs/mine", "--step", 7], "has no rollouts of step 7; it has 1 to 2", 1),
        (["runs/mine", "--step", 1, "--group", 9], "step 1 has no group 9; groups go by their tickets: 0, 1, 2, 3", 1),
        (["runs/mine", "--step", 1, "--stage", "cold"], "has no stage 'cold' that samples", 2),
        (["elsewhere", "--step", 1], "is no run", 2),
    ):
        found, _, err = cohort("replay", *words)
        assert (found, said in " ".join(err.split())) == (code, True), err
    code, _, err = cohort("train", "recipe.toml", "--resume", "--from", "runs/mine@2")
    assert (code, "give one of them" in err) == (2, True)
    code, _, err = cohort("train", "recipe.toml", "--from", "runs/mine", "name=x")
    assert (code, "takes RUN@STEP" in err) == (2, True)
