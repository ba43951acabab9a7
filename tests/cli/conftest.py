from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cohort import cli

RECIPE = """
name = "mine"
[policy]
model = "base"
[task]
source = "train.jsonl"
prompt = "question"
answer = "solution"
held_out = 0.25
[rollout]
prompts_per_step = 4
group_size = 3
max_tokens = 8
[[reward]]
use = "my_rewards:vowels"
[[reward]]
use = "exact_number"
weight = 0.5
[objective]
preset = "dapo"
[evaluate]
problems = 3
reward = "exact_number"
[run]
steps = 2
threads = 1
"""
REWARD = 'def vowels(completion):\n    return sum(c in "aeiou" for c in completion) / (1 + len(completion))\n'


@pytest.fixture
def desk(tmp_path, monkeypatch, checkpoint_dir):
    """A user's directory: data, a reward module, a checkpoint, a recipe."""
    rows = [{"question": f"What is {i} plus {i + 1}?", "solution": str(2 * i + 1)} for i in range(24)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "my_rewards.py").write_text(REWARD)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    return tmp_path


@pytest.fixture
def read_back_here(monkeypatch):
    """Exports are read back in this process, which is sooner done; a test of exports leaves it at a new one."""
    from cohort.commands import export, read_back

    def run(words):
        error = ""
        try:
            read_back.main(*map(str, words[3:]))
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
        return subprocess.CompletedProcess(words, int(bool(error)), "", error)

    monkeypatch.setattr(export, "_in_new_process", run)


@pytest.fixture
def cohort(monkeypatch, capfd):
    """Run a command; returns (exit code, output, errors)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["cohort", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as error:
            code = error.code
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return call
