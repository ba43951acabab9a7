"""Training on an environment of verifiers, as a recipe has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

pytest.importorskip("verifiers")

from cohort.integrations.verifiers.play import COLUMN, play
from cohort.recipe import Recipe
from cohort.record.rollouts import read_groups
from cohort.train import train
from cohort.types import UserError
from cohort.views.console import Console


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def run(tmp_path, checkpoint_dir):
    tables: dict[str, Any] = {
        "name": "guess",
        "seed": 1,
        "policy": {"model": str(checkpoint_dir)},
        "task": {"source": "verifiers:guess_number", "limit": 24, "held_out": 0.25},
        "environment": {"use": "verifiers", "max_turns": 3},
        "rollout": {"prompts_per_step": 3, "group_size": 4, "max_tokens": 64, "stop": ["e", "s", " ", "a", "n"]},
        "reward": [{"use": "random"}, {"use": "verifiers"}],  # a new policy never wins, so luck gives the signal
        "objective": {"preset": "dr_grpo"},
        "optimizer": {"learning_rate": 1e-2},
        "evaluate": {"problems": 3, "samples": 2},
        "run": {"steps": 2, "directory": str(tmp_path / "runs"), "threads": 1},
    }

    def start(**changes):
        changed = {k: {**tables.get(k, {}), **v} if isinstance(v, dict) else v for k, v in changes.items()}
        return train(Recipe(**{**tables, **changed}), console=Console(quiet=True))

    return start


def groups_of(done, name="step"):
    files = sorted((done.directory / "log").glob(f"{name}-*.parquet"))
    return [group for file in files for group in read_groups(file)]


def test_several_turns_are_trained_on(run):
    done = run()
    tokenizer = AutoTokenizer.from_pretrained(done.final)
    cut = 0
    for group in groups_of(done):
        for rollout, reward in zip(group.rollouts, group.scores["verifiers"], strict=True):
            replies = [turn.text for turn in rollout.turns]
            played = play(group.prompt.tags[COLUMN], replies, rollout.finish, score=True)
            assert reward == pytest.approx(sum(score * weight for score, weight in played.rewards.values()))
            cut += not played.over
            for turn, after in zip(rollout.turns, rollout.turns[1:]):
                (message,) = turn.observation.messages
                said = tokenizer.decode(rollout.tokens[turn.end : after.start])
                assert said.removeprefix("<|end|>") == f"<|user|>{message['content']}<|assistant|>"
                assert not any(rollout.mask[turn.end : after.start])
                assert all(rollout.mask[turn.start : turn.end])
    assert cut
    for line in done.metrics[1:]:
        assert 1 < line["turns/mean"] <= 3
        assert line["policy/mismatch"] < 1e-4  # the engine and learner agree, turn after turn
        assert line["reward/verifiers/cut_off"] > 0
    assert any(len(rollout.turns) > 1 for group in groups_of(done, "eval") for rollout in group.rollouts)


def test_a_plain_taskset_needs_no_environment(run):
    done = run(
        task={"source": "verifiers:reverse_words", "limit": 12},
        environment={"use": None},
        reward=[
            {"use": "verifiers", "name": "length", "args": {"part": "length"}},
            {"use": "verifiers", "name": "exact", "args": {"part": "exact"}, "weight": 0.1},
        ],
        evaluate={"reward": "exact"},
    )
    for line in done.metrics[1:]:
        assert 0 < line["reward/length/mean"] <= 1
        assert line["reward/exact/mean"] == 0
        assert not any(name.endswith("cut_off") for name in line)


def test_turns_that_nobody_plays_are_refused(run):
    match = r"'verifiers:guess_number' has turns of its own.*environment\.use = \"verifiers\""
    with pytest.raises(UserError, match=match):
        run(environment={"use": None})
