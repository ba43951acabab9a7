"""Recipes with a stage that trains a reward model, and with a stage that trains on its scores."""

from __future__ import annotations

import io
import json
import random

import orjson
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from cohort.recipe import Recipe
from cohort.record.metrics import is_timing, read_metrics
from cohort.rewards.models.reward_model import reward_model
from cohort.train import train
from cohort.train.reward_model.training import RewardModelTraining
from cohort.train.run import prepare
from cohort.types import UserError
from cohort.views.console import Console

SMALL = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 16, "intermediate_size": 64}


@pytest.fixture
def pairs(tmp_path):
    """People who like answers that say please."""
    draw = random.Random(0)
    words = ["apple", "pear", "plum", "fig"]
    lines = []
    for number in range(120):
        said = " ".join(draw.choices(words, k=draw.randint(1, 5)))
        other = " ".join(draw.choices(words, k=draw.randint(1, 5)))
        line = {"prompt": f"What would you like, number {number}?", "chosen": f"{said} please", "rejected": other}
        lines.append(json.dumps(line) + "\n")
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(lines))
    return file


@pytest.fixture
def tables(tmp_path, pairs):
    return {
        "name": "rm",
        "kind": "reward_model",
        "policy": {"scratch": SMALL},
        "task": {"source": str(pairs), "held_out": 0.25},
        "preferences": {"pairs_per_step": 8},
        "optimizer": {"learning_rate": 3e-3},
        "run": {"steps": 30, "evaluate_every": 10, "save_every": 10, "directory": str(tmp_path / "runs"), "threads": 1},
    }


def start(tables, resume=False, **changes):
    merged = {**tables, **{k: {**tables.get(k, {}), **v} if isinstance(v, dict) else v for k, v in changes.items()}}
    return train(Recipe(**merged), resume=resume, console=Console(quiet=True))


def refused(tables, **changes):
    with pytest.raises(UserError) as caught:
        start(tables, **changes)
    return str(caught.value)


def test_it_learns_what_people_prefer(tables, capsys):
    run = train(Recipe(**tables), console=Console(width=120))
    last = run.metrics[-1]
    assert last["eval/accuracy"] > 0.95
    assert last["eval/calibration_error"] < 0.2
    assert [line["step"] for line in run.metrics if "eval/accuracy" in line] == [0, 10, 20, 30]
    assert last["loss"] < run.metrics[1]["loss"]
    assert run.metrics[1]["loss"] == pytest.approx(0.6931, abs=1e-3)

    report = orjson.loads((run.directory / "reward_model.json").read_bytes())
    assert report["step"] == 30
    assert report["accuracy"] == last["eval/accuracy"]
    assert sum(item["pairs"] for item in report["bins"]) == report["pairs"]
    printed = capsys.readouterr().out
    assert "Bradley-Terry" in printed
    assert f"held-out accuracy {report['accuracy']:.1%}" in printed
    card = (run.final / "README.md").read_text()
    assert f"| pairs ranked right | {run.metrics[0]['eval/accuracy']:.1%} [" in card
    assert f"{report['accuracy']:.1%} [" in card
    assert 'kind = "reward_model"' in card

    AutoModelForSequenceClassification.from_pretrained(run.final)
    question = "What would you like, number 7?"
    polite, rude = reward_model([question] * 2, ["plum please", "plum"], str(run.directory))
    assert polite > rude


def test_a_killed_stage_goes_on_with_the_same_bits(tables, monkeypatch, tmp_path):
    whole = start(tables, name="whole")
    real, calls = RewardModelTraining.step, []

    def fail_once(self, step):
        calls.append(step)
        if step == 17 and calls.count(17) == 1:
            raise KeyboardInterrupt
        return real(self, step)

    monkeypatch.setattr(RewardModelTraining, "step", fail_once)
    with pytest.raises(KeyboardInterrupt):
        start(tables, name="killed")
    killed = start(tables, resume=True, name="killed")
    assert calls.count(12) == 2  # it went back to the checkpoint of step 10
    ours, theirs = (load_file(run.final / "model.safetensors") for run in (killed, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for a, b in zip(killed.metrics, whole.metrics, strict=True):
        assert {k: v for k, v in a.items() if not is_timing(k)} == {k: v for k, v in b.items() if not is_timing(k)}


def test_a_reward_model_is_trained_on(tables):
    """As iterative GRPO does: it starts with the score that it has, from the directory of its run."""
    before = start(tables)
    again = start(tables, name="again", policy={"scratch": None, "model": str(before.directory)}, run={"steps": 1})
    assert again.metrics[1]["loss"] < 0.3
    assert again.metrics[1]["pairs/accuracy"] == 1.0


def test_micro_batches_do_not_change_the_result(tables):
    runs = [
        start(tables, name=f"t{tokens}", optimizer={"tokens_per_micro_batch": tokens}, run={"steps": 3})
        for tokens in (1, 10**6)
    ]
    losses = [[line["loss"] for line in run.metrics[1:]] for run in runs]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_margins_and_centring(tables, pairs, tmp_path):
    rows = [json.loads(line) | {"by": 3.0} for line in pairs.read_text().splitlines()]
    file = tmp_path / "margins.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    wide = start(tables, name="wide", task={"source": str(file), "margin": "by"}, run={"steps": 1})
    assert wide.metrics[1]["loss"] == pytest.approx(3.0486, abs=1e-3)  # log(1 + e^3)
    centred = start(tables, name="centred", preferences={"centring": 5.0}, run={"steps": 20})
    assert abs(centred.metrics[-1]["scores/mean"]) < 0.2


def test_without_held_out_pairs(tables, capsys):
    del tables["task"]["held_out"]
    tables["run"]["steps"] = 2
    run = train(Recipe(**tables), console=Console(width=120))
    assert "no held-out pairs" in capsys.readouterr().out
    assert "nothing is held out" in (run.final / "README.md").read_text()


def test_long_pairs_follow_the_tasks_rule(tables, pairs):
    with pairs.open("a") as file:
        file.write(json.dumps({"prompt": "long " * 1600, "chosen": "a please", "rejected": "b"}) + "\n")
    tables["run"]["steps"], tables["preferences"]["pairs_per_step"] = 2, 121
    del tables["task"]["held_out"]
    message = refused(tables)
    assert "pairs.jsonl:1" in message
    assert "task.too_long" in message
    dropped = start(tables, name="dropped", task={"too_long": "drop"})
    assert sum(line["pairs/too_long"] for line in dropped.metrics) == 2  # once a pass
    start(tables, name="cut", task={"too_long": "truncate_left"})


def test_what_is_wrong_is_said_before_a_model_loads(tables, tmp_path):
    assert "fewer than one step takes" in refused(tables, preferences={"pairs_per_step": 500})
    assert "no column 'better'" in refused(tables, task={"chosen": "better"})
    assert "policy.lora is not for reward_model stages" in refused(
        tables, policy={"lora": {"rank": 2}, "scratch": None, "model": "x"}
    )
    assert "brings its own instructions" in refused(tables, task={"template": "r1_zero", "system": "Hi"})
    assert not (tmp_path / "runs").exists()


def test_a_recipe_trains_on_the_score_of_its_own_reward_model(tables, tmp_path, capsys):
    """Supervised, then a reward model, then GRPO on it: the policy goes on from the first stage, not the second."""
    demos = tmp_path / "demos.jsonl"
    rows = [{"prompt": f"What would you like, number {i}?", "completion": "plum pear"} for i in range(40)]
    demos.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"source": str(demos)}
    recipe = Recipe(
        name="pipeline",
        seed=1,
        run={"directory": str(tmp_path / "runs"), "threads": 1, "save_every": 0},
        stage=[
            {"kind": "sft", "policy": {"scratch": SMALL}, "task": source, "run": {"steps": 3},
             "supervised": {"examples_per_step": 8}},
            {"kind": "reward_model", "name": "taste", "task": tables["task"], "run": {"steps": 3},
             "preferences": tables["preferences"]},
            {"kind": "grpo", "task": source, "run": {"steps": 2}, "evaluate": {"problems": 0},
             "rollout": {"prompts_per_step": 2, "group_size": 3, "max_tokens": 5},
             "reward": [{"use": "reward_model", "args": {"model": "stage:taste"}}]},
        ],
    )  # fmt: skip
    run = train(recipe, console=Console(quiet=True))
    assert len(run.metrics) >= 2
    assert all(
        line["reward/reward_model/mean"] is not None for line in read_metrics(run.directory / "metrics.jsonl")[1:]
    )
    names = [json.loads((run.directory / stage / "final" / "config.json").read_text())["architectures"]
             for stage in ("stages/sft", "stages/taste", ".")]  # fmt: skip
    assert names == [["Qwen3ForCausalLM"], ["Qwen3ForSequenceClassification"], ["Qwen3ForCausalLM"]]


def test_a_stage_that_is_not_there_cannot_score(tables, tmp_path):
    demos = {"source": str(tables["task"]["source"])}
    stages = [
        {"kind": "grpo", "policy": {"scratch": SMALL}, "task": demos,
         "reward": [{"use": "reward_model", "args": {"model": "stage:rm"}}]},
        {"kind": "reward_model", "name": "rm", "task": demos},
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"no stage of that name that trains a reward model comes before it"):
        train(Recipe(name="x", run={"directory": str(tmp_path)}, stage=stages), console=Console(quiet=True))


def test_what_stands_outside_the_stages_is_asked_of_those_that_read_it(tables):
    """A reward, and earlier pairs, that name a stage: in that stage itself they mean nothing."""
    stages = [
        {"kind": "reward_model", "name": "rm", "policy": {"scratch": SMALL}, "task": tables["task"]},
        {"kind": "grpo", "policy": {"scratch": SMALL}, "task": {"source": str(tables["task"]["source"])}},
    ]
    few = {"preferences": {"pairs_per_step": 4}, "rollout": {"prompts_per_step": 2, "group_size": 2, "max_tokens": 4}}
    reward = [{"use": "reward_model", "args": {"model": "stage:rm"}}]
    made = prepare(Recipe(name="x", reward=reward, stage=stages, **few))
    assert made[0].prepared.parts is None
    assert "stages/rm/final" in made[1].prepared.parts.rewards[0].args["model"]


def test_the_best_step_is_confirmed_on_pairs_that_did_not_choose(tables):
    text = io.StringIO()
    changed = {**tables["run"], "keep_best": "eval/loss", "stop": {"metric": "eval/accuracy", "threshold": 0.5}}
    run = train(Recipe(**{**tables, "run": changed}), console=Console(file=text, width=300))
    column = {line["step"]: line["eval/choosing/loss"] for line in run.metrics if line["step"] and "eval/loss" in line}
    best = min(column, key=column.get)
    line = next(line for line in run.metrics if line["step"] == best)
    halves = {line["eval/choosing/loss"], line["eval/confirming/loss"]}
    assert min(halves) < line["eval/loss"] < max(halves)
    said = " ".join(text.getvalue().split())
    assert f"kept step {best}, the best of {len(column)} by eval/loss" in said
    assert f"{line['eval/confirming/loss']:.4g} on problems that had no part in the choice" in said
    assert "confirmed on the others" in said
    assert run.metrics[-1]["step"] < 30  # good enough


@pytest.mark.parametrize(
    ("run", "says"),
    [
        ({"keep_best": "eval/greedy"}, "is nothing that a stage of kind reward_model measures"),
        ({"stop": {"metric": "reward:mean", "patience": 2}}, "is nothing that a stage of kind reward_model measures"),
        ({"keep_best": "eval/accuracy", "evaluate_every": 0}, "set run.evaluate_every"),
    ],
)
def test_what_a_reward_model_never_measures_is_refused(tables, run, says):
    assert says in refused(tables, run=run)


def test_suites_of_a_stage_without_a_policy_are_refused(tables, pairs):
    suite = [{"source": str(pairs), "use": "exact_number"}]
    assert "[suite], which a stage of kind 'reward_model' does not read" in refused(tables, suite=suite)


def test_a_metric_of_pairs_needs_pairs_that_are_held_out(tables):
    assert "no pairs are held out" in refused(tables, task={"held_out": None}, run={"keep_best": "eval/accuracy"})


def test_a_lost_gradient_of_a_reward_model_goes_back_to_its_checkpoint(tables, monkeypatch):
    clip, calls = torch.nn.utils.clip_grad_norm_, iter(range(1, 100))
    lost = lambda weights, bound: torch.tensor(torch.nan) if next(calls) == 13 else clip([*weights], bound)  # noqa: E731
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lost)
    changed = {**tables["run"], "steps": 15}
    run = start(tables, run=changed, monitor={"actions": {"not_finite": "roll_back"}})
    assert [line["step"] for line in run.metrics if line["step"] and line["loss"] is None] == [13]
    saved = [load_file(run.directory / f"checkpoints/step-{step:06d}/model.safetensors") for step in (10, 13)]
    assert all(torch.equal(saved[0][key], saved[1][key]) for key in saved[0])
