"""Without the modules that Windows lacks: whatever needs none of them runs, and the rest says so.

Tried: a supervised stage, its resume, `sample`, `explain`, `doctor`; a lock that is held; a stage with rewards.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from cohort.rewards import RewardPool, RewardTable, resolve
from cohort.types import UserError

STAND_IN = """
import builtins, sys, types
real = builtins.__import__
def without(name, globals=None, *rest, **more):
    if str((globals or {}).get("__name__")).startswith("cohort"):
        if name in ("fcntl", "resource", "pwd", "grp"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        if name == "msvcrt":
            return types.SimpleNamespace(locking=locking, LK_NBLCK=2)
    return real(name, globals, *rest, **more)
builtins.__import__ = without
def locking(descriptor, mode, size):
    if LOCKED:
        raise PermissionError(13, "Permission denied")
from cohort.cli import app
for words in WORDS:
    answer = app(words, standalone_mode=False)
    if answer.words:
        from cohort.views.console import Console
        answer.words(Console(), answer.value)
"""
RECIPE = """name = "stage"
kind = "sft"
policy.scratch = { hidden_size = 32, layers = 1, heads = 2, kv_heads = 1, head_dim = 16 }
task = { source = "word_problems" }
supervised.examples_per_step = 4
run = { threads = 1, steps = 1 }
evaluate.problems = 0
"""


def as_on_windows(where, locked, *words):
    (where / "stage.toml").write_text(RECIPE)
    code = STAND_IN.replace("LOCKED", str(locked)).replace("WORDS", repr(words))
    return subprocess.run([sys.executable, "-c", code], cwd=where, capture_output=True, text=True, check=False)


def test_what_needs_nothing_that_windows_lacks_runs(tmp_path):
    sample = ["sample", "runs/stage", "hello", "--template", "none", "-n", "1", "--max-tokens", "2"]
    again = ["train", "stage.toml", "run.steps=2", "--resume"]
    done = as_on_windows(tmp_path, False, ["train", "stage.toml"], again, sample)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/stage/checkpoints/step-000002/manifest.json").exists()
    done = as_on_windows(tmp_path, True, ["train", "stage.toml", "name=other"])
    assert "another process is training in" in done.stderr


def test_a_stage_with_rewards_says_that_it_needs_another_system(monkeypatch):
    monkeypatch.setattr("cohort.rewards.workers.pool.os.name", "nt")
    with pytest.raises(UserError, match="WSL 2"):
        RewardPool([resolve(RewardTable(use="exact_number"))])
