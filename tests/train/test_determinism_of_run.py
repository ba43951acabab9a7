"""The determinism level in the record of a run, and that it is so: two runs of one recipe, and one that is resumed."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from cohort.learn.learner import Learner


def weights(run):
    return load_file(run.directory / "final" / "model.safetensors")


@pytest.mark.parametrize("optimizer", [{}, {"state": "8bit"}])
def test_a_run_that_is_said_to_be_bit_equal_is(run, monkeypatch, optimizer):
    """Also one that broke off and went on from its checkpoint, with the averages that lie there."""
    whole = run(name="whole", optimizer=optimizer)
    (stage,) = json.loads((whole.directory / "record.json").read_text())["stages"]
    assert stage["policies"]["trained"]["value"]["determinism"] == "bit-equal"

    update, done = Learner.update, []

    def breaks(learner, batch, rate):
        done.append(rate)
        if len(done) == 4:
            raise RuntimeError("the power is gone")
        return update(learner, batch, rate)

    monkeypatch.setattr(Learner, "update", breaks)
    with pytest.raises(RuntimeError, match="power"):
        run(name="broken", optimizer=optimizer)
    monkeypatch.setattr(Learner, "update", update)
    resumed = run(name="broken", optimizer=optimizer, resume=True)
    ours, theirs = weights(whole), weights(resumed)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
