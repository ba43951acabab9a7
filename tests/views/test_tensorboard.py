"""The tracker that writes event files for TensorBoard, read back by TensorBoard's own reader."""

from __future__ import annotations

import math
import sys

import pytest

from cohort.recipe import Recipe
from cohort.train import train
from cohort.types import UserError
from cohort.views.console import Console
from cohort.views.trackers.tensorboard import TensorBoard

SCRATCH = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 16, "intermediate_size": 64}


@pytest.fixture
def read():
    """The numbers in a directory of event files, by name: {name: {step: value}}."""
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs the extra tensorboard"
    )

    def numbers(directory):
        found = reader.EventAccumulator(str(directory), size_guidance={reader.SCALARS: 0})
        found.Reload()
        return {name: {e.step: e.value for e in found.Scalars(name)} for name in found.Tags()["scalars"]}

    return numbers


def test_a_run_and_its_continuation(tmp_path, read):
    """Steps after the checkpoint that a run goes on from are hidden, and written again."""

    def run(steps, resume=False):
        recipe = Recipe(
            name="t",
            policy={"scratch": SCRATCH},
            task={"source": "word_problems"},
            rollout={"prompts_per_step": 2, "group_size": 2, "max_tokens": 6},
            reward="exact_number",
            evaluate={"problems": 0},
            run={"steps": steps, "threads": 1, "trackers": ["tensorboard"], "directory": str(tmp_path)},
        )
        return train(recipe, resume=resume, console=Console(quiet=True))

    run(2)
    done = run(4, resume=True)
    found = read(done.directory / "tensorboard")
    lines = {line["step"]: line for line in done.metrics}
    assert found["grad_norm"] == pytest.approx({step: lines[step]["grad_norm"] for step in (1, 2, 3, 4)})
    assert set(found["reward/exact_number/mean"]) == {1, 2, 3, 4}


def test_what_is_no_number_is_left_out(tmp_path, read):
    sink = TensorBoard(tmp_path, -1)
    sink.write(0, {"eval/greedy": 0.5, "policy/kl": math.nan, "grad_norm": math.inf, "text": "x", "count": 3})
    sink.close()
    resumed = TensorBoard(tmp_path, 0)
    resumed.write(1, {"count": 4})
    resumed.close()
    assert read(tmp_path / "tensorboard") == {"eval/greedy": {0: 0.5}, "count": {0: 3.0, 1: 4.0}}


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'cohort\[tensorboard\]'"):
        TensorBoard(tmp_path, -1)
