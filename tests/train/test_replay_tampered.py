"""One changed value of a run is found, and named with its step, row and field, by the level that recomputes it."""

from __future__ import annotations

import re
import shutil
from typing import Any

import orjson
import pytest
import torch
from recorded import found, rewrite, rewrite_metrics
from safetensors.torch import load_file, save_file
from vowels import share_of_vowels

from cohort.recipe import Recipe
from cohort.train import train
from cohort.train.replay.checks import checks_of
from cohort.train.replay.opened import open_run
from cohort.types import UserError
from cohort.views.console import Console


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tokenizer):
    """A run that is made once, with every checkpoint, and copied by each test."""
    from cohort.policy.scratch import make_model
    from cohort.settings import Scratch

    where = tmp_path_factory.mktemp("tampered")
    sizes = Scratch(hidden_size=32, layers=2, heads=2, kv_heads=1, head_dim=16, intermediate_size=64)
    make_model(tokenizer, 3, sizes).save_pretrained(where / "base")
    tokenizer.save_pretrained(where / "base")
    rows = ({"question": f"What is {i} plus {i + 1}?", "answer": str(2 * i + 1)} for i in range(24))
    (where / "mine.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    recipe = Recipe(
        name="small",
        policy={"model": str(where / "base")},
        task={"source": str(where / "mine.jsonl"), "prompt": "question"},
        rollout={"prompts_per_step": 3, "group_size": 4, "max_tokens": 8},
        reward=[{"use": share_of_vowels, "name": "vowels"}],
        optimizer={"learning_rate": 1e-2},
        run={"steps": 2, "save_every": 1, "directory": str(where / "runs"), "threads": 1},
    )
    return train(recipe, console=Console(quiet=True)).directory


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "small")


def set_to(place, column, value):
    """A change of one row's column, to a value or to what a function makes of the one there."""

    def change(rows):
        row = rows[place]
        row[column] = value(row[column]) if callable(value) else value

    return change


STEP = "log/step-000002.parquet"

VALUES: list[
    tuple[int, str, Any, str, str]
] = [  # (row of step 2, its column, what becomes of it; the check that names it, and how)
    (0, "scores", '{"vowels": 0.75}', "2 reward vowels", "ticket 3, member 0: scores.vowels is 0.75, and comes to"),
    (1, "reward", 0.75, "2 rewards", "ticket 3, member 1: reward is 0.75"),
    (2, "accuracy", 0.75, "2 rewards", "ticket 3, member 2: accuracy is 0.75"),
    (5, "text", "!", "2 text", "ticket 4, member 1: text is '!', and comes to"),
    (6, "tokens", [31] * 8, "2 text", "ticket 4, member 2: text is"),
    (7, "mask", [False] * 8, "2 text", "ticket 4, member 3: mask is"),
    (9, "advantage", 1e-9, "3 advantages", "ticket 5, member 1: advantage is 1e-09"),
    (9, "logprobs", [-6.0] * 8, "4 log-probs of version 1", "ticket 5, member 1: logprobs["),
]


def test_changed_values_are_each_named(run):
    def change(rows):
        for row, column, value, _, _ in VALUES:
            length = len(rows[row][column]) if isinstance(value, list) else None
            rows[row][column] = value if length is None else value[:1] * length

    rewrite(run / STEP, change)
    said = {f"{c.level} {c.name}": c.detail for (one,) in [open_run(run)] for c in checks_of(one, 4, None, 20)}
    for _, _, _, check, how in VALUES:
        assert f"{STEP}, {how}" in said[check], said[check]
    assert "completions/mean_tokens is" in said["3 metrics"]


STRUCTURE = [
    (set_to(5, "prompt", "What?"), "member 1: prompt is not that of"),
    (set_to(5, "version", 0), "member 1: version is 0"),
    (set_to(5, "step", 1), "member 1: step is 1"),
    (set_to(5, "finish", "never"), "member 1: there is no text, or nothing that says"),
    (set_to(5, "disposition", "zero_std"), "member 1: disposition is not that of"),
    (lambda rows: rows[:5] + rows[6:], "has the members"),
    (lambda rows: rows[:7], "has 3 rollouts, and the recipe asks for 4"),
    (lambda rows: [*rows, *rows[4:8]], "in two places"),
    (lambda rows: [*rows[:6], rows[5], *rows[6:]], "has the members"),
    (lambda rows: [row | {"scores": '{"other": 1.0}'} for row in rows], "has scores of other, not of vowels"),
]


def test_what_no_run_can_have_written_is_refused(run, whole):
    (recorded,) = open_run(run)
    for change, said in STRUCTURE:
        shutil.copyfile(whole / STEP, run / STEP)
        rewrite(run / STEP, change)
        with pytest.raises(UserError, match=re.escape(said)) as refused:
            recorded.read(2)
        assert STEP in str(refused.value)
    shutil.copyfile(whole / "log/step-000001.parquet", run / STEP)
    assert "step is 1, in a file of step 2" in found(run, 2)["2 rollouts of step 2"]


def test_a_lost_group_and_groups_in_another_order(run, whole):
    rewrite(run / STEP, lambda rows: rows[:4] + rows[8:])
    assert "step 2: reward/mean is" in found(run, 3)["3 metrics"]
    shutil.copyfile(whole / STEP, run / STEP)
    rewrite(run / STEP, lambda rows: rows[4:8] + rows[:4] + rows[8:])
    assert "4 weights after step 2" in found(run, 4)


def test_a_group_is_changed_as_a_whole(run):
    """What a forger would do who knows that rewards and advantages are recomputed: the weights say so still."""

    def change(rows):
        for row in rows[4:8]:
            row["prompt_tokens"] = rows[0]["prompt_tokens"]
            row["prompt_json"], row["prompt"], row["answer"] = (rows[0][c] for c in ("prompt_json", "prompt", "answer"))
            row["prompt_id"] = rows[0]["prompt_id"]

    rewrite(run / "log/step-000002.parquet", change)
    assert not found(run, 3)
    assert {"4 log-probs of version 1", "4 step 2", "4 weights after step 2"} <= found(run, 4).keys()


NUMBERS = [
    (1, "reward/mean", 0.9, "3 metrics"),
    (2, "completions/mean_tokens", 3.0, "3 metrics"),
    (1, "loss", 0.125, "4 step 1"),
    (2, "grad_norm", 0.125, "4 step 2"),
    (2, "policy/entropy", None, "4 step 2"),
]


def test_changed_numbers(run):
    for step, name, value, _ in NUMBERS:
        rewrite_metrics(run / "metrics.jsonl", step, **{name: value})
    said = found(run, 4)
    assert said.keys() == {check for _, _, _, check in NUMBERS}
    for step, name, value, check in NUMBERS:
        assert f"metrics.jsonl, step {step}: {name} is {value}, and comes to" in said[check]


def test_a_lost_line_of_numbers(run):
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join(lines[:-1]))
    assert found(run, 3) == {"3 metrics": "metrics.jsonl has no line of step 2"}


def test_a_changed_checkpoint_and_another_one_in_its_place(run):
    weights = run / "checkpoints/step-000001/model.safetensors"
    before = load_file(weights)
    name = next(iter(before))
    save_file({**before, name: before[name] + 1e-3 * torch.ones_like(before[name])}, weights, {"format": "pt"})
    assert "is damaged (model.safetensors is not as it was written)" in found(run, 4)["4 policy of step 1"]
    shutil.rmtree(run / "checkpoints/step-000002")
    shutil.copytree(run / "checkpoints/step-000001", run / "checkpoints/step-000002")
    assert "4 weights after step 2" not in found(run, 4, "holds")


def test_another_model_to_begin_with(run, whole):
    config = whole.parent.parent / "base/config.json"
    text = config.read_text()
    config.write_text(text.replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    try:
        assert "is not the model that the run began with" in found(run, 4)["4 policy of step 0"]
    finally:
        config.write_text(text)


def test_a_changed_reward_function(run):
    file = run / "environment.json"
    facts = orjson.loads(file.read_bytes())
    facts["code"] = dict.fromkeys(facts["code"], "0" * 32)
    file.write_bytes(orjson.dumps(facts))
    assert found(run, 2) == {
        "2 code of reward vowels of stage grpo": "the source of reward vowels of stage grpo is not that which the run "
        "recorded"
    }
    file.write_bytes(orjson.dumps(facts | {"python": "3.8.1"}))
    assert "other byte code" in found(run, 2, "skipped")["2 code of reward vowels of stage grpo"]


def test_a_changed_recipe(run):
    text = (run / "recipe.toml").read_text()
    for key, value, check in (
        ('preset = "grpo"', 'preset = "dr_grpo"', "3 advantages"),
        ("weight = 1.0", "weight = 2.0", "2 rewards"),
    ):
        assert key in text
        (run / "recipe.toml").write_text(text.replace(key, value))
        assert check in found(run, 3)
    other = text.replace("learning_rate = 0.01", "learning_rate = 0.02").replace(
        "\ntemperature = 1.0", "\ntemperature = 0.5"
    )
    (run / "recipe.toml").write_text(other)
    assert {"4 step 1", "4 log-probs of version 0"} <= found(run, 4).keys()


HOSTILE = [
    b"",
    b"PAR1 and no more",
    *(
        {column: value}
        for column, value in (
            ("scores", "not JSON"),
            ("scores", "[]"),
            ("scores", '{"vowels": "many"}'),
            ("prompt_json", '{"text": 1}'),
            ("prompt_json", '{"system": ""}'),
            ("prompt_json", "[" * 5000),
            ("tokens", [-1] * 8),
            ("tokens", None),
            ("mask", []),
            ("logprobs", [float("nan")] * 8),
            ("turns", '[{"start": 0}]'),
            ("member", -7),
            ("ticket", None),
            ("version", None),
        )
    ),
]


def test_hostile_rows_are_named_without_a_traceback(run, whole):
    (recorded,) = open_run(run)
    file = run / STEP
    for content in HOSTILE:
        shutil.copyfile(whole / STEP, file)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            rewrite(file, lambda rows, content=content: [row | content for row in rows])
        with pytest.raises(UserError, match=r"log/step-000002\.parquet"):
            recorded.read(2)


@pytest.mark.parametrize("column", [{"tokens": [2**31 - 1]}, {"prompt_tokens": [2**31 - 1]}], ids=list)
def test_tokens_that_no_model_has(run, column):
    name, (value,) = next(iter(column.items()))
    rewrite(run / STEP, lambda rows: [row | {name: [value] * len(row[name])} for row in rows])
    assert "tokens that the model does not have" in found(run, 4)["4 step 2"]
