"""A DPO step: its gradient is that of the paper's loss, whatever the micro-batches; and it learns."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
import torch

from cohort.algorithms.losses import dpo
from cohort.backends.base import Origin, open_backend
from cohort.policy.load import Start
from cohort.recipe import Recipe
from cohort.record.metrics import read_metrics
from cohort.train import train
from cohort.train.directory import as_kept
from cohort.train.dpo import _objective, _Pairs
from cohort.train.examples import PreparedPairs
from cohort.train.run import prepare
from cohort.types import UserError
from cohort.views.console import Console

BETA = 0.3


@pytest.fixture
def recipe(tmp_path, checkpoint_dir):
    def make(**changes):
        file = tmp_path / "pairs.jsonl"
        rows = [
            {"prompt": f"What is {i} plus 1?", "chosen": f"It is {i + 1}.", "rejected": "I do not know that."}
            for i in range(12)
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        tables = {
            "name": "pairs",
            "kind": "dpo",
            "policy": {"model": str(checkpoint_dir)},
            "task": {"source": str(file), "held_out": 0.3},
            "preferences": {"pairs_per_step": 4},
            "dpo": {"beta": BETA},
            "optimizer": {"learning_rate": 1e-3},
            "run": {"steps": 6, "directory": str(tmp_path / "runs"), "threads": 1},
        }
        return Recipe(**{**tables, **changes})

    return make


def test_the_gradient_of_a_step_is_that_of_the_loss_itself(recipe):
    one = prepare(recipe(optimizer={"learning_rate": 1e-3, "tokens_per_micro_batch": 20, "gradient_clip": 0.0}))[0]
    backend: Any = open_backend(one.stage, _objective(one.stage.dpo), Origin(1, Start(), one.prepared.texts))
    assert isinstance(one.prepared, PreparedPairs)
    lesson = _Pairs(one.stage, one.prepared, backend.facts)
    found = {}

    def caught(batch, rate):
        learner = backend._learner
        step, learner.optimizer.step = (
            learner.optimizer.step,
            lambda: found.update(
                {name: p.grad.clone() for name, p in backend.policy.module.named_parameters() if p.grad is not None}
            ),
        )
        try:
            return learner.update(batch, rate)
        finally:
            learner.optimizer.step = step

    with torch.no_grad():  # so that policy and reference differ
        for parameter in backend.policy.module.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    backend.update = caught
    metrics, _ = lesson.learn(backend, range(4), 0.0)
    batch = lesson._batch(one.prepared.pairs.train, range(4))
    reference = lesson._sums(backend, batch)[1]

    model, starts = backend.policy.module, (batch.lengths.cumsum(0) - batch.lengths).tolist()
    sums = []
    for row, (start, length) in enumerate(zip(starts, batch.lengths.tolist(), strict=True)):
        prompt = list(batch.prompts[int(batch.group[row])])
        answer = batch.tokens[start : start + length].tolist()
        backend.policy.release()
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        sums.append(logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum())
    pairs = torch.stack(sums).view(-1, 2)
    loss = dpo(pairs[:, 0], pairs[:, 1], reference[:, 0].float(), reference[:, 1].float(), beta=BETA).mean()
    model.zero_grad()
    loss.backward()
    assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert found
    for name, parameter in model.named_parameters():
        if name in found:
            torch.testing.assert_close(found[name], parameter.grad, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("changes", [{}, {"dpo": {"loss": "ipo", "beta": 0.1}}])
def test_it_learns_to_tell_answers_apart_and_held_out_ones_too(recipe, changes):
    run = train(recipe(**changes), console=Console(quiet=True))
    lines = read_metrics(run.directory / "metrics.jsonl")
    assert lines[0]["eval/accuracy"] == 0.0  # policy and reference are the same
    assert lines[-1]["eval/accuracy"] == 1.0
    assert lines[-1]["pairs/gap"] > lines[1]["pairs/gap"] == pytest.approx(0, abs=1e-5)
    assert lines[-1]["eval/loss"] < lines[0]["eval/loss"]


def test_with_lora_the_reference_is_the_base(recipe, checkpoint_dir):
    policy = {"model": str(checkpoint_dir), "lora": {"rank": 4}}
    run = train(recipe(policy=policy, optimizer={"learning_rate": 1e-2}), console=Console(quiet=True))
    lines = read_metrics(run.directory / "metrics.jsonl")
    assert lines[1]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert lines[-1]["loss"] < lines[1]["loss"]


def test_half_of_the_held_out_pairs_chooses_the_step_and_the_others_confirm_it(recipe):
    run = {"steps": 4, "evaluate_every": 2, "keep_best": "eval/accuracy", "threads": 1}
    made = recipe(run={**run, "directory": recipe().stages[0].run.directory})
    done = train(made, console=Console(quiet=True))
    for line in (one for one in done.metrics if "eval/accuracy" in one):
        low, mid, high = (line[f"eval/confirming/accuracy{end}"] for end in ("_low", "", "_high"))
        assert low <= mid <= high
        assert (
            min(line["eval/choosing/accuracy"], mid)
            <= line["eval/accuracy"]
            <= max(line["eval/choosing/accuracy"], mid)
        )
    closed = [json.loads(line) for line in (done.directory / "log/chain.jsonl").read_text().splitlines()][-1]
    assert (
        closed["policy"]["chosen"]["confirmed"]
        == done.metrics[closed["policy"]["chosen"]["step"]]["eval/confirming/accuracy"]
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"keep_best": "eval/greedy"}, r"needs evaluate\.reward, which says what is right, and task\.held_out"),
        ({"keep_best": "eval/calibration_error"}, "is nothing that a stage of kind dpo measures"),
        ({"stop": {"metric": "reward/mean", "patience": 1}}, "is nothing that a stage of kind dpo measures"),
    ],
)
def test_a_number_that_it_does_not_measure_cannot_choose_or_stop(recipe, changes, said):
    with pytest.raises(UserError, match=said):
        prepare(recipe(run={"steps": 4, "evaluate_every": 2, **changes}))


def test_pairs_cannot_choose_where_problems_are_held_out(recipe, tmp_path):
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"prompt": "What is 2 plus 1?", "answer": "3"}\n')
    task = {"source": recipe().stages[0].task.source, "held_out": str(asked)}
    run = {"steps": 4, "evaluate_every": 2, "keep_best": "eval/accuracy"}
    with pytest.raises(
        UserError, match=r"no pairs are held out: set task\.held_out, which names problems beside a reward"
    ):
        prepare(recipe(task=task, run=run, reward="exact_number"))


def test_tools_that_stand_outside_the_stages_are_none_of_a_stage_of_pairs(recipe, tmp_path, checkpoint_dir):
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"prompt": f"{i} plus 1?", "answer": str(i + 1)}) + "\n" for i in range(4)))
    pairs = {"source": recipe().stages[0].task.source, "held_out": str(problems)}
    first = {"kind": "evaluate", "name": "first", "task": {"source": str(problems), "held_out": str(problems)}}
    tables: dict[str, Any] = {"name": "two", "policy": {"model": str(checkpoint_dir)}, "reward": "exact_number"}
    tables |= {"preferences": {"pairs_per_step": 4}, "environment": {"tools": ["python"]}}
    asked = Recipe(**tables, stage=[first, {"kind": "dpo", "task": pairs}])
    kept = Recipe.from_tables(tomllib.loads(as_kept(asked)))
    for one in (asked, kept):  # a run that goes on with the recipe that it keeps evaluates as it began
        measured, learnt = prepare(one)
        assert [tool.name for tool in measured.prepared.parts.world.tools] == ["python"]
        assert learnt.prepared.parts.world.tools == ()
