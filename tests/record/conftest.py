"""One tiny run of two stages, made once, that tests copy and change."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest

from cohort.record.verify import verify
from cohort.types import UnreadableError

RECIPE = """
name = "tiny"
seed = 5
[task]
source = "word_problems"
levels = [1]
[run]
directory = "runs"
threads = 1
save_every = 1
[[stage]]
kind = "sft"
name = "start"
policy.scratch = { hidden_size = 16, layers = 1, heads = 2, kv_heads = 1, head_dim = 8, intermediate_size = 16 }
supervised.examples_per_step = 4
run.steps = 2
[[stage]]
kind = "grpo"
name = "rl"
rollout = { prompts_per_step = 2, group_size = 2, max_tokens = 4 }
reward = "tiny_score:score"
evaluate = { problems = 2, samples = 2 }
run.steps = 3
run.gate = "warn"
"""
REWARD = 'def score(completion):\n    return sum(c in "aeiou" for c in completion) / (1 + len(completion))\n'
STANDALONE = Path(__file__).parents[2] / "tools/verify_run.py"


def made(where: Path, name: str = "tiny", *overrides: str) -> Path:
    """Train the recipe in a directory of its own."""
    from cohort.recipe import Recipe
    from cohort.train import train
    from cohort.views.console import Console

    where.mkdir(exist_ok=True)
    (where / "recipe.toml").write_text(RECIPE)
    (where / "tiny_score.py").write_text(REWARD)
    before = Path.cwd()
    os.chdir(where)
    sys.modules.pop("tiny_score", None)
    sys.path.insert(0, str(where))
    try:
        recipe = Recipe.load(where / "recipe.toml", [f"name={name}", f"run.directory={where / 'runs'}", *overrides])
        return train(recipe, console=Console(quiet=True), resume=True).directory
    finally:
        os.chdir(before)
        sys.path.remove(str(where))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The run itself: read it, and change only copies."""
    return made(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def run_copy(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "run")


def standalone(run: Path, *keys: Path) -> tuple[int, str]:
    """The exit code of tools/verify_run.py and what it says has failed."""
    spec = importlib.util.spec_from_file_location("verify_run", STANDALONE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    code = module.verify(run, list(keys))
    return code, "\n".join(module.failures)


def verdict(run: Path) -> tuple[int, str]:
    """The exit code of `cohort record verify` and what has failed, on which the standalone verifier must agree."""
    try:
        report = verify(run)
        code = 0 if report.holds else 1
        failed = "\n".join(f"{check.detail}" for check in report.checks if check.status == "failed")
    except UnreadableError as error:
        code, failed = 2, str(error)
    other, said = standalone(run, Path(os.environ["COHORT_KEY"]).with_suffix(".pub"))
    assert other == code, f"Cohort: {code} ({failed}); tools/verify_run.py: {other} ({said})"
    return code, failed
