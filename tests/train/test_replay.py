"""Every level of verification holds on every kind of run, and says what it cannot recompute."""

from __future__ import annotations

import shutil

import orjson
import pytest
from recorded import found, holds, rewrite
from scorers import longer

from cohort.commands.replay import replay_from, replay_step, replay_tokens
from cohort.commands.verify import redacted
from cohort.record.rollouts import read_rows
from cohort.train.replay import checks
from cohort.types import UnreadableError, UserError

EVERY = {"save_every": 1, "keep_checkpoints": 10}
FEW = {"save_every": 2, "keep_checkpoints": 1}


@pytest.fixture
def tmp_path(place):
    return place


def test_a_plain_run_holds_at_every_level(run, once):
    where = once("every", lambda: run(run=EVERY)).directory
    held = holds(where)
    assert held["2 reward vowels"] == "scores, recomputed from the text: 48, all equal"
    assert held["3 advantages"].endswith(": 48, all equal")
    for step in (1, 2, 3, 4):
        assert "bit for bit" in held[f"4 step {step}"]
        assert "bit for bit" in held[f"4 weights after step {step}"]
        assert "plain forward pass" in held[f"4 log-probs of version {step - 1}"]
    assert {check.level for check in checks(where, 3)} == {2, 3}
    assert not checks(where, 1)


def test_only_steps_whose_policy_is_stored_are_learnt_again(run, once):
    where = once("few", lambda: run(run=FEW)).directory
    held = holds(where)
    assert [name for name in held if name.startswith("4 step")] == ["4 step 1"]
    with pytest.raises(UserError, match=r"the policy before step 2 is not stored .* before steps 1"):
        replay_tokens(where, 2, 4, "")
    rows = read_rows(where / "log/step-000001.parquet")
    row = next(row for row in rows if row["disposition"] == "trained" and row["advantage"] > 0)
    found = replay_tokens(where, 1, row["ticket"], "")["completions"][row["member"]]
    assert found["sampler"] == pytest.approx(found["learner"], abs=1e-4)
    assert found["sampler"] == pytest.approx(row["logprobs"])
    assert all(0 < entropy < 7 for entropy in found["entropy"])
    assert sum(found["after"]) > sum(found["sampler"])  # what was better than its group has become likelier
    assert len(found["texts"]) == len(found["clipped"]) == len(row["tokens"])
    with pytest.raises(UserError, match="no group 99"):
        replay_tokens(where, 1, 99, "")
    held = holds(run(name="two").directory)
    assert [name for name in held if name.startswith("4 step")] == ["4 step 1", "4 step 3"]


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": {"lora": {"rank": 4, "alpha": 8}}},
        {"objective": {"preset": "grpo", "kl_coef": 0.05}, "reference": {"update_every": 2, "ema": 0.5}},
        {"objective": {"preset": "gspo"}, "optimizer": {"updates_per_batch": 2, "epochs": 2}},
        {"objective": {"preset": "dapo"}, "rollout": {"temperature": 0.7}},
        {"objective": {"preset": "grpo"}, "rollout": {"max_staleness": 1}, "run": {"save_every": 2}},
        {"policy": {"compute": "bfloat16"}, "optimizer": {"schedule": "cosine", "warmup_steps": 2}},
    ],
    ids=["lora", "kl", "gspo", "dapo, cooler", "staleness", "bfloat16"],
)
def test_kinds_of_runs_hold(run, changes):
    changes = {**changes, "run": {**EVERY, **changes.get("run", {})}}
    held = holds(run(**changes).directory)
    assert "4 step 1" in held
    assert "4 log-probs of version 0" in held
    assert "3 advantages" in held


@pytest.mark.parametrize("preset", ["ppo", "reinforce_pp"])
def test_advantages_that_come_from_a_policy_are_recomputed_where_it_is_stored(run, preset):
    where = run(objective={"preset": preset}, run=EVERY).directory
    assert "level 4 recomputes" in found(where, 3, "skipped")["3 advantages"]
    held = holds(where)
    assert held["4 advantages of step 2"].endswith(": 12, all equal")
    assert "4 step 4" in held


def test_groups_without_signal_are_recomputed_too(run):
    where = run(reward=[longer], objective={"preset": "dapo", "zero_std": "drop"}, run=EVERY).directory
    held = holds(where)
    assert held["3 dispositions"].endswith(": 12, all equal")


def test_a_resumed_run_and_a_copy_hold(run, once, tmp_path):
    where = once("every", lambda: run(run=EVERY)).directory
    shutil.rmtree(where / "final")
    for step in (3, 4):
        shutil.rmtree(where / f"checkpoints/step-00000{step}")
    assert run(run=EVERY, resume=True).directory == where
    shutil.copytree(where, tmp_path / "elsewhere" / "copy")
    shutil.rmtree(where)
    held = holds(tmp_path / "elsewhere" / "copy")
    assert "4 weights after step 4" in held


def test_what_is_gone_is_skipped_with_the_reason(run, once, tmp_path):
    where = once("few", lambda: run(run=FEW)).directory
    shutil.rmtree(tmp_path / "base")
    shutil.rmtree(where / "checkpoints")
    shutil.rmtree(where / "final")
    skipped = found(where, 4, "skipped")
    assert not found(where, 4)
    assert "cannot be opened: there is no directory" in skipped["4 policy of step 0"]
    assert "holds no model" in skipped["2 text"]


def test_another_machine_is_compared_within_a_tolerance(run, once):
    where = once("every", lambda: run(run=EVERY)).directory
    file = where / "environment.json"
    machine = orjson.loads(file.read_bytes())
    for change, had in (({"processor": "another"}, "another processor"), ({"kernels": "none"}, "another path")):
        file.write_bytes(orjson.dumps(machine | change))
        assert f"within 0.001 of their size, as the run had {had}" in holds(where)["4 step 1"]


def test_rollouts_of_an_older_version_are_refused_in_a_sentence(run, once):
    import pyarrow.parquet as pq

    where = once("plain", run).directory
    file = where / "log/step-000002.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["logprobs"]), file)
    assert "has no column 'logprobs'" in found(where, 2)["2 rollouts of step 2"]
    for file in (where / "log").glob("step-*"):
        file.unlink()
    assert "run.save_rollouts" in found(where, 4, "skipped")["2 rollouts"]
    with pytest.raises(UnreadableError, match="is no run"):
        checks(where / "log", 4)
    (where / "recipe.toml").write_text('name = "x"\nflux = 1\n')
    with pytest.raises(UnreadableError):
        checks(where, 4)


def test_prompts_of_before_hold_without_what_they_had_begun(run, once):
    where = once("plain", run).directory

    def old(rows):
        for row in rows:
            known = orjson.loads(row["prompt_json"])
            assert known.pop("begun") == ""
            row["prompt_json"] = orjson.dumps(known).decode()

    for file in (where / "log").glob("step-*"):
        rewrite(file, old)
    holds(where)


def test_answers_of_evaluations_are_scored_again(run):
    where = run(evaluate={"reward": "exact_number"}).directory
    held = holds(where, 3)
    assert (
        held["2 held-out reward exact_number"] == "scores, recomputed from the text: 24, all equal"
    )  # 2 x 4 x (1 + 2)
    assert held["2 held-out rewards"].endswith(": 48, all equal")

    def better(rows):
        rows[1] |= {"reward": 1.0, "accuracy": 1.0}
        rows[2]["scores"] = '{"exact_number":1.0}'
        rows[3]["text"] = rows[3]["answer"]

    rewrite(where / "log/eval-000004-sampled.parquet", better)
    named = found(where, 2)
    assert "log/eval-000004-sampled.parquet, ticket 0, member 1: reward is 1.0" in named["2 held-out rewards"]
    assert "ticket 1, member 0: scores.exact_number is 1.0" in named["2 held-out reward exact_number"]
    assert "ticket 1, member 1: text is" in named["2 text"]
    rewrite(where / "log/eval-000004-greedy.parquet", lambda rows: [row | {"version": 3} for row in rows])
    said = found(where, 2)["2 greedy answers after step 4"]
    assert "version is 3, and what step 4 has is of version 4" in said


def test_of_a_step_with_erased_texts_the_other_groups_are_scored_again(run, once):
    where = once("every", lambda: run(run=EVERY)).directory
    redacted(where, "step == 2 and ticket == 3 and member == 1", None, "", "the person asked for it")
    held = holds(where)
    assert held["2 reward vowels"] == "scores, recomputed from the text: 44, all equal"
    assert "4 step 2" not in held
    assert "4 step 3" in held
    said = found(where, 4, "skipped")["2 rollouts of step 2"]
    assert said == "log/step-000002.parquet: texts of ticket 3 were erased; the others are looked at alone"
    with pytest.raises(UserError, match="step 2 cannot be learnt again: texts of ticket 3 were erased"):
        replay_from(where, 1, "", "", where.with_name("again"))
    assert not where.with_name("again").exists()
    with pytest.raises(UserError, match="texts of group 3 were erased"):
        replay_step(where, 2, 3, "")
