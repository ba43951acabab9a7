"""A process reward model: trained on steps with labels, saved as a token classifier, and read by the reward as it was
trained; the labels of embedded word problems.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from vowels import begins_with_vowel, share_of_vowels

from cohort.policy.policy import Policy
from cohort.recipe import Recipe
from cohort.record.metrics import read_metrics
from cohort.record.rollouts import read_groups
from cohort.record.verify import verify
from cohort.rewards.calling.steps import cut, pieces, splitter
from cohort.rewards.models.reward_model import process_model
from cohort.rewards.models.text import Form
from cohort.rewards.verifiers.working import SPLIT, working
from cohort.settings import Stage, Task
from cohort.tasks.embedded.word_problems import WORD_PROBLEMS, demonstration
from cohort.tasks.steps import open_solutions
from cohort.tasks.task import TaskFromPython
from cohort.train import train
from cohort.train.reward_model.scorer import Scorer
from cohort.train.reward_model.steps import StepLesson
from cohort.train.run import prepare
from cohort.types import UserError
from cohort.views.console import Console
from tiny import make_tiny

ROWS = [
    {"prompt": "How many are left?", "completions": ["12 + 7 = 19", "19 - 4 = 15<|end|>"], "labels": [True, False]},
    {"prompt": "And now?", "completions": ["one"], "labels": [0.25]},
    {"prompt": "And then?", "completions": ["a", "b c", "d"], "labels": [False, True, True]},
]


def steps_of(text):
    return pieces(text, cut(text, splitter(SPLIT, "working")))


@pytest.fixture
def solutions(tmp_path):
    file = tmp_path / "steps.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return open_solutions(Task(source=str(file)))


@pytest.mark.parametrize(
    ("rows", "keys", "says"),
    [
        ([{"prompt": "?", "completions": ["a"]}], {}, "no column 'labels'; .* call the columns so"),
        (ROWS, {"levels": (2,)}, "levels belong to the source .* remove levels"),
    ],
)
def test_solutions_that_cannot_be_read_are_refused(rows, keys, says):
    with pytest.raises(UserError, match=says):
        open_solutions(TaskFromPython(source=rows, **keys))


@pytest.fixture
def scorer(tokenizer):
    """One that has an opinion."""
    made = Scorer(Policy(make_tiny("qwen3", tokenizer), tokenizer), Form("{prompt}"), steps=True)
    torch.manual_seed(1)
    torch.nn.init.normal_(made.head.weight, 0, 0.5)
    return made


def test_the_reward_says_the_probability_that_was_trained_for_every_step(solutions, scorer, tmp_path):
    stage = Stage(kind="process_model", task=Task(source="?"))
    lesson = StepLesson(stage, solutions, scorer.policy.facts(), scorer.form)
    items = [lesson.read(index) for index in range(3)]
    loss, found = lesson.loss(scorer, items)
    assert found[:, 1].tolist() == [1, 0, 0.25, 0, 1, 1]
    plain = torch.nn.functional.binary_cross_entropy(found[:, 0].sigmoid(), found[:, 1])
    assert loss.item() == pytest.approx(plain.item(), abs=1e-6)
    parts = [lesson.loss(scorer, [one])[0] * lesson.units([one]) / lesson.units(items) for one in items]
    assert torch.stack(parts).sum().item() == pytest.approx(loss.item(), abs=1e-6)
    scorer.save(tmp_path / "prm")
    said = [
        score
        for row in ROWS
        for scores in process_model(
            prompts=[row["prompt"]], completions=["?"], steps=[row["completions"]], model=str(tmp_path / "prm")
        )
        for score in scores
    ]
    assert said == pytest.approx(found[:, 0].sigmoid().tolist(), abs=2e-5)
    assert max(said) - min(said) > 0.05


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"labels": [True]}, "'labels' must be 2 values, one for each step"),
        ({"labels": [True, 1.5]}, "a number from 0 to 1"),
        ({"completions": ["a", " "]}, "'completions' must be a list of steps, each a text"),
        ({"completions": "a"}, "'completions' must be a list of steps"),
    ],
)
def test_a_bad_row_is_said_with_its_place(tmp_path, row, problem):
    file = tmp_path / "steps.jsonl"
    file.write_text(json.dumps({**ROWS[0], **row}) + "\n")
    with pytest.raises(UserError, match=r"steps\.jsonl:1") as caught:
        open_solutions(Task(source=str(file)))
    assert problem in str(caught.value)


def test_the_working_of_a_word_problem_is_right_step_by_step():
    for index in range(50):
        made = WORD_PROBLEMS.problem(0, 2, "train", index)
        steps = steps_of(demonstration(made, "careful", index))
        assert len(steps) == made.steps + 1
        assert working(steps, made.reasoning, made.answer) == [1.0] * len(steps)
        guess = steps_of(demonstration(made, "sloppy", index, sloppy_right=0.0))
        assert working(guess, made.reasoning, made.answer) == [0.0] * len(guess)
    gold = {"reasoning": "12 + 7 = 19 . 19 - 4 = 15", "answer": "15"}
    assert steps_of("<think> 12 + 7 = 19 . 19 - 4 = 14 </think><answer> 15 </answer>") == [
        *("<think> 12 + 7 = 19 .", "19 - 4 = 14 </think>", "<answer> 15 </answer>")
    ]
    assert working(["12 + 7 = 19", "12 + 7 = 19", "19 - 4 = 14", "<answer> 15 </answer>"], **gold) == [1, 0, 0, 1]
    assert working(["I guess .", "<answer> 14 </answer>", ""], **gold) == [0, 0, 0]


def test_from_labels_of_samples_to_a_policy_that_is_paid_for_steps(tables, tmp_path):
    shared = {key: value for key, value in tables.items() if key not in ("objective", "rollout", "reward", "optimizer")}
    split = {"split": " "}
    stages: list[dict[str, Any]] = [
        {
            "kind": "reject",
            "name": "samples",
            "rollout": {"prompts_per_step": 4, "group_size": 6},
            "reward": [
                {"use": share_of_vowels, "name": "vowels"},
                {"use": begins_with_vowel, "name": "starts", "weight": 0.0, **split},
            ],
            "reject": {"least": {"vowels": 0.0}, "truncated": True},
            "evaluate": {"problems": 0},
            "run": {"steps": 4},
        },
        {
            "kind": "process_model",
            "name": "steps",
            "task": {"source": "stage:samples", "held_out": 0.5},
            "preferences": {"pairs_per_step": 6},
            "optimizer": {"learning_rate": 1e-2},
            "evaluate": {"problems": 100},
            "run": {"steps": 12, "evaluate_every": 4, "keep_best": "eval/loss"},
        },
        {
            "kind": "grpo",
            "name": "learn",
            "rollout": {"prompts_per_step": 2, "group_size": 3},
            "reward": [{"use": "process_model", "args": {"model": "stage:steps"}, "timeout_s": 120.0, **split}],
            "run": {"steps": 1},
        },
    ]
    recipe = Recipe(**{**shared, "name": "road", "rollout": {"max_tokens": 8}, "stage": stages})
    run = train(recipe, console=Console(quiet=True)).directory
    rows = [json.loads(line) for line in (run / "stages/samples/final/steps.jsonl").read_text().splitlines()]
    assert len({(row["prompt"], "".join(row["completions"])) for row in rows}) == len(rows) > 6
    for row in rows:
        assert row["labels"] == [bool(label) for label in begins_with_vowel(row["completions"])]
    lines = read_metrics(run / "stages/steps/metrics.jsonl")
    assert lines[-1]["eval/loss"] < lines[0]["eval/loss"]
    assert 0 <= lines[-1]["eval/accuracy_low"] <= lines[-1]["eval/accuracy"] <= lines[-1]["eval/accuracy_high"] <= 1
    group = read_groups(run / "log/step-000001.parquet")[0]
    assert all(0 < step.score < 1 for of in group.steps["process_model"] for step in of)
    assert group.token_advantages
    assert verify(run).holds
    stages[0]["reward"] = stages[0]["reward"][:1]
    unlabelled = Recipe(**{**shared, "name": "other", "stage": stages})
    with pytest.raises(UserError, match="no reward of the stage 'samples' scores steps: give one of its rewards a spl"):
        prepare(unlabelled)
