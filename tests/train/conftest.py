from __future__ import annotations

import json

import pytest
import torch
from vowels import share_of_vowels

from cohort.recipe import Recipe
from cohort.train import train
from cohort.views.console import Console


@pytest.fixture
def rows(tmp_path):
    """A user's own training file."""
    path = tmp_path / "mine.jsonl"
    lines = [{"question": f"What is {i} plus {i + 1}?", "solution": str(2 * i + 1), "kind": "sum"} for i in range(24)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def tables(tmp_path, rows, checkpoint_dir):
    """The tables of a small GRPO recipe on the user's own file, model and reward."""
    return {
        "name": "small",
        "seed": 1,
        "policy": {"model": str(checkpoint_dir)},
        "task": {"source": str(rows), "prompt": "question", "answer": "solution", "held_out": 0.25},
        "rollout": {"prompts_per_step": 3, "group_size": 4, "max_tokens": 8},
        "reward": [{"use": share_of_vowels, "name": "vowels"}],
        "objective": {"preset": "dr_grpo"},
        "optimizer": {"learning_rate": 1e-2},
        "evaluate": {"problems": 4, "samples": 2},
        "run": {"steps": 4, "save_every": 2, "directory": str(tmp_path / "runs"), "threads": 1, "show_group_every": 2},
    }


@pytest.fixture(autouse=True)
def one_thread():
    yield
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)


def change(tables, **changes):
    """The tables with some tables updated."""
    return {
        **tables,
        **{k: {**tables.get(k, {}), **v} if isinstance(v, dict) else v for k, v in changes.items()},
    }


@pytest.fixture
def run(tables):
    """Train the small recipe with some tables changed."""

    def start(resume=False, console=None, **changes):
        return train(Recipe(**change(tables, **changes)), resume=resume, console=console or Console(quiet=True))

    return start
