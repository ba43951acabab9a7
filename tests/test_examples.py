"""The examples run, as a person would run them, and learn."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

# The cells of a notebook in the order of the page, each compiled on its own, in one namespace: what Jupyter does.
RUN_CELLS = """
import sys, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbformat.validate(notebook)
for number, cell in enumerate(notebook.cells):
    if cell.cell_type == "code":
        exec(compile(cell.source, f"cell {number}", "exec"), globals())
"""


@pytest.fixture(scope="module")
def loop():
    spec = importlib.util.spec_from_file_location("grpo_loop", EXAMPLES / "grpo_loop.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_loop_is_short():
    assert len((EXAMPLES / "grpo_loop.py").read_text().splitlines()) <= 150


def test_the_loop_repeats_itself(loop):
    first, again = (loop.main(steps=2, cold_start=5) for _ in range(2))
    assert first == again


@pytest.mark.slow
def test_the_loop_learns(loop):
    rewards = loop.main(steps=40)
    assert sum(rewards[:5]) / 5 < 0.4
    assert sum(rewards[-5:]) / 5 > 0.6


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    pytest.importorskip("nbformat")
    command = [sys.executable, "-c", RUN_CELLS, str(EXAMPLES / "quickstart.ipynb")]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=230)
    assert done.returncode == 0, done.stderr
    assert "held-out accuracy by score" in done.stdout


def test_the_notebook_is_kept_without_outputs():
    assert '"output_type"' not in (EXAMPLES / "quickstart.ipynb").read_text()
