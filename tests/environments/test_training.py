"""Training, evaluating and resuming with an environment, as a recipe has it."""

from __future__ import annotations

import io
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from talking import Talks, spoken_to, vowels
from transformers import AutoTokenizer

from cohort.commands.evaluate import run_evaluation
from cohort.recipe import Recipe
from cohort.record.metrics import is_timing
from cohort.record.rollouts import read_groups
from cohort.train import train
from cohort.types import UserError
from cohort.views.console import Console


@pytest.fixture
def tables(tmp_path, checkpoint_dir):
    """A small GRPO recipe whose turns end at common letters, so that a random policy takes several."""
    path = tmp_path / "mine.jsonl"
    rows = [{"question": f"What is {i} plus {i + 1}?", "solution": str(2 * i + 1)} for i in range(24)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "name": "talks",
        "seed": 1,
        "policy": {"model": str(checkpoint_dir)},
        "task": {"source": str(path), "prompt": "question", "answer": "solution", "held_out": 0.25},
        "environment": {"use": Talks, "max_turns": 4},
        "rollout": {"prompts_per_step": 3, "group_size": 4, "max_tokens": 48, "stop": ["e", "s", " ", "a", "n"]},
        "reward": [{"use": vowels}],
        "objective": {"preset": "dr_grpo"},
        "optimizer": {"learning_rate": 1e-2},
        "evaluate": {"problems": 4, "samples": 2},
        "run": {"steps": 4, "save_every": 2, "directory": str(tmp_path / "runs"), "threads": 1, "gate": "off"},
    }


@pytest.fixture
def run(tables):
    """Train the small recipe with some tables changed."""

    def start(resume=False, console=None, **changes):
        changed = {k: {**tables.get(k, {}), **v} if isinstance(v, dict) else v for k, v in changes.items()}
        return train(Recipe(**{**tables, **changed}), resume=resume, console=console or Console(quiet=True))

    return start


def recorded(done, name="step"):
    return {file.name: read_groups(file) for file in sorted((done.directory / "log").glob(f"{name}-*.parquet"))}


def test_rollouts_of_several_turns_are_trained_on_and_recorded(run):
    done = run()
    tokenizer = AutoTokenizer.from_pretrained(done.final)
    for line, groups in zip(done.metrics[1:], recorded(done).values(), strict=True):
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        assert line["turns/mean"] == pytest.approx(sum(len(r.turns) for r in rollouts) / len(rollouts))
        assert 1.5 < line["turns/mean"] <= 3
        assert line["tokens/sampled"] == sum(sum(r.mask) for r in rollouts) < sum(len(r.tokens) for r in rollouts)
        assert line["tokens/trained"] == line["tokens/sampled"] - line["tokens/wasted"]
        assert line["completions/mean_tokens"] == pytest.approx(line["tokens/sampled"] / len(rollouts))
        assert line["policy/mismatch"] < 1e-4  # engine and learner agree, turn after turn
        assert len({len(r.tokens) for r in rollouts}) > 1
        for rollout in rollouts:
            assert len(rollout.tokens) <= 48
            assert all(p == 0.0 for p, own in zip(rollout.logprobs, rollout.mask, strict=True) if not own)
            for number, (turn, after) in enumerate(zip(rollout.turns, rollout.turns[1:]), start=1):
                said = tokenizer.decode(rollout.tokens[turn.end : after.start])
                assert said.removeprefix("<|end|>") == f"<|user|>once more {number}<|assistant|>"
                assert turn.observation.messages == ({"role": "user", "content": f"once more {number}"},)
    assert any(r.finish == "stop" and len(r.turns) == 3 for groups in recorded(done).values() for g in groups
               for r in g.rollouts)  # fmt: skip


def test_the_record_says_in_plain_columns_what_was_the_policys(run):
    done = run(run={"steps": 1}, evaluate={"problems": 0})
    table = pq.read_table(done.directory / "log" / "step-000001.parquet").to_pylist()
    for row in table:
        turns = json.loads(row["turns"])
        own = {at for turn in turns for at in range(turn["start"], turn["end"])}
        assert row["mask"] == [at in own for at in range(len(row["tokens"]))]
        assert row["text"] == turns[-1]["text"]


def test_evaluations_run_in_the_environment(run):
    done = run(evaluate={"reward": "talking:spoken_to"})
    for line in (done.metrics[0], done.metrics[-1]):
        assert line["eval/pass@1"] > 0.5
    for groups in recorded(done, "eval").values():
        assert any(len(rollout.turns) > 1 for group in groups for rollout in group.rollouts)
        assert all(rollout.turns for group in groups for rollout in group.rollouts)


def test_a_group_that_the_world_failed_is_dropped_and_counted(run):
    console = io.StringIO()
    done = run(
        environment={"use": Talks, "args": {"lost": "7 plus"}},
        rollout={"prompts_per_step": 18, "group_size": 2, "max_staleness": 0},
        task={"held_out": None},
        evaluate={"problems": 0},
        run={"steps": 2},
        console=Console(file=console),
    )
    lost = [group for groups in recorded(done).values() for group in groups if group.error]
    assert {group.prompt.question for group in lost} <= {"What is 7 plus 8?", "What is 17 plus 18?"}
    assert lost
    assert all(group.disposition == "error" and not group.rollouts and not group.rewards for group in lost)
    assert sum(line["groups/failed"] for line in done.metrics[1:]) == len(lost)
    assert "lost a group: the server is down" in console.getvalue()
    for groups in recorded(done).values():
        assert sum(group.error is None for group in groups) == 18  # others took their places


def test_a_world_that_always_fails_stops_the_run(run):
    with pytest.raises(UserError, match=r"groups could not be scored.*run\.failure_budget.*the server is down"):
        run(environment={"use": Talks, "args": {"lost": "plus"}}, evaluate={"problems": 0})
    with pytest.raises(UserError, match="no held-out problem could be scored; the first failure: the server is down"):
        run(name="other", environment={"use": Talks, "args": {"lost": "plus"}})


def test_broken_code_stops_the_run_with_what_was_trained(run):
    with pytest.raises(
        UserError, match=r"the environment's step raised NameError: this environment is broken at .*\d+"
    ):
        run(environment={"use": Talks, "args": {"bad": "11 plus"}}, task={"held_out": None}, evaluate={"problems": 0},
            run={"steps": 40, "save_every": 1})  # fmt: skip


class Crash(BaseException):
    """Not an Exception, so that nothing handles it."""


@pytest.fixture
def tmp_path(place):
    return place


@pytest.mark.parametrize("at", [9, 16, 24])
def test_a_resumed_run_is_the_same_run(run, once, monkeypatch, at):
    """Groups sampled ahead, turns of them and groups that were lost among them, survive a crash bit for bit."""
    settings = {
        "environment": {"use": Talks, "args": {"lost": "7 plus"}},
        "rollout": {"max_staleness": 1},
        "objective": {"preset": "grpo"},
        "evaluate": {"problems": 3},
        "run": {"steps": 5},
    }
    whole = once("whole", lambda: run(name="whole", **settings))
    calls, fsync = 0, os.fsync

    def failing(handle):
        nonlocal calls
        calls += 1
        if calls == at:
            raise Crash
        fsync(handle)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(Crash):
        run(name="crashed", **settings)
    monkeypatch.setattr(os, "fsync", fsync)
    resumed = run(name="crashed", resume=True, **settings)
    ours, theirs = (load_file(done.final / "model.safetensors") for done in (whole, resumed))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for line, other in zip(whole.metrics, resumed.metrics, strict=True):
        assert {k: v for k, v in line.items() if not is_timing(k)} == {
            k: v for k, v in other.items() if not is_timing(k)
        }
    assert recorded(whole) == recorded(resumed)
    assert recorded(whole, "eval") == recorded(resumed, "eval")
    assert any(group.error for groups in recorded(whole).values() for group in groups)


def test_rewards_in_trls_form_get_the_conversation(run, tables, tmp_path):
    path = tmp_path / "chat.jsonl"
    rows = [{"prompt": [{"role": "user", "content": f"What is {i}?"}], "answer": "1"} for i in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tables["task"] = {"source": str(path)}
    done = run(reward=[{"use": "talking:messages_of_trl", "style": "trl"}], run={"steps": 1}, evaluate={"problems": 0})
    (groups,) = recorded(done).values()
    for group in groups:
        assert group.rewards == tuple(float(len(rollout.transcript)) for rollout in group.rollouts)
    assert max(reward for group in groups for reward in group.rewards) == 5.0


def test_eval_measures_in_the_environment_of_the_run(run):
    done = run(reward=[{"use": spoken_to}], run={"steps": 1}, evaluate={"problems": 0})
    model = str(done.directory)
    spoken, silent = (
        run_evaluation(model, None, overrides, samples=2, problems=3, against=None, seed=0).models[model]
        for overrides in ([], ["environment.max_turns=1"])
    )
    assert spoken["eval/pass@1"] > 0.5
    assert silent["eval/pass@1"] == 0.0


def test_a_run_of_several_turns_is_recomputed_and_learnt_again(run):
    from cohort.train.replay import checks
    from cohort.train.replay.again import learn_again
    from cohort.train.replay.opened import open_stage

    where = run(run={"steps": 2, "save_every": 1}, evaluate={"problems": 0}).directory
    found = {f"{check.level} {check.name}": check for check in checks(where, 4)}
    assert all(check.status == "holds" for check in found.values()), found
    assert {"2 text", "2 reward vowels", "3 advantages", "4 step 2", "4 log-probs of version 1"} <= found.keys()
    assert learn_again(open_stage(where), 0, None, None, Console(quiet=True)).same
    file = where / "log/step-000002.parquet"
    rows = pq.read_table(file).to_pylist()
    number = next(n for n, row in enumerate(rows) if len(json.loads(row["turns"])) > 1)
    turns = json.loads(rows[number]["turns"])
    turns[0]["observation"]["messages"][0]["content"] = "something else"
    rows[number]["turns"] = json.dumps(turns)
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(file)), file)
    failed = [check.detail for check in checks(where, 2) if check.status == "failed"]
    assert "tokens of what answered turn 0 is" in failed[0]
