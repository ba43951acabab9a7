"""A small recipe that is trained on a cluster, or in this process."""

from __future__ import annotations

import json

import pytest
import torch
from vowels import share_of_vowels

from cohort.recipe import Recipe
from cohort.train import train
from cohort.views.console import Console


@pytest.fixture
def run(tmp_path, checkpoint_dir):
    """Train a small recipe with a [cluster] table, or without one."""
    rows = tmp_path / "mine.jsonl"
    lines = [{"question": f"What is {i} plus {i + 1}?", "solution": str(2 * i + 1)} for i in range(24)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def start(name, steps=4, rollout=(), objective=(), **cluster):
        torch.set_num_threads(1)
        tables = {
            "policy": {"model": str(checkpoint_dir)},
            "task": {"source": str(rows), "prompt": "question", "answer": "solution"},
            "rollout": {"prompts_per_step": 3, "group_size": 4, "max_tokens": 8, **dict(rollout)},
            "reward": [{"use": share_of_vowels, "name": "vowels"}],
            "objective": {"preset": "dr_grpo", "kl_coef": 0.05, **dict(objective)},
            "optimizer": {"learning_rate": 1e-2},
            "evaluate": {"problems": 0},
            "run": {"steps": steps, "save_every": 2, "directory": str(tmp_path / "runs"), "threads": 1, "gate": "off"},
        }
        return train(Recipe(name=name, seed=1, cluster=cluster, **tables), console=Console(quiet=True))

    return start
