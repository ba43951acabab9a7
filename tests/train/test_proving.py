"""Samplers that hold other weights than the learner: the run stops with a sentence, and records nothing of it."""

from __future__ import annotations

import io

import pytest
import torch
from faulty_samplers import Closed
from safetensors.torch import load_file

from cohort.backends.proving import refuse_apart
from cohort.policy.weights import fingerprint
from cohort.settings import Rollout, Stage, Task
from cohort.types import UserError
from cohort.views.console import Console


def sampled_by(name: str, **more):
    return {"sampler": f"faulty_samplers:{name}", **more}


@pytest.mark.parametrize(
    ("sampler", "version", "says"),
    [
        ("Stale", 2, "holds other ones than were published (their fingerprint is "),
        ("Misplaced", 0, "holds other ones than were published"),
        ("Noisy", 0, "holds other ones than were published"),
        ("Unchanged", 0, "log-probs of the canary, a fixed text, are"),
        ("Older", 3, "says that it holds those of step 2 (rollout.sampler)"),
        ("SilentNoisy", 0, "log-probs of this step's rollouts are"),
        ("SilentNoisy bypass", 0, "log-probs of this step's rollouts are"),
    ],
)
def test_a_sampler_with_other_weights_stops_the_run(run, tmp_path, sampler, version, says):
    name, _, bypass = sampler.partition(" ")
    with pytest.raises(UserError) as caught:
        run(rollout=sampled_by(name), objective={"bypass": bool(bypass)}, run={"save_every": 1})
    assert says in str(caught.value)
    assert f"stage 'grpo', weights of step {version}:" in str(caught.value)
    assert "`publish`, which has to copy every weight under its own name" in str(caught.value)
    place = tmp_path / "runs/small"
    steps = {int(path.stem.rpartition("-")[2]) for path in (place / "log").glob("step-*.parquet")}
    assert not (place / "final").exists()
    assert max(steps, default=0) <= max(version, 1)  # where the update was made, its rollouts tell what went wrong
    saved = {int(path.name.rpartition("-")[2]) for path in (place / "checkpoints").glob("step-*")}
    assert saved <= set(range(version))


def test_a_sampler_that_is_refused_before_the_first_step_is_closed(run):
    Closed.closed.clear()
    with pytest.raises(UserError, match="of the canary, a fixed text"):
        run(rollout=sampled_by("Closed"))
    assert Closed.closed == [0]


def test_an_adapter_that_is_lost_stops_the_run(run):
    with pytest.raises(UserError, match="holds other ones than were published"):
        run(policy={"lora": {"rank": 2}}, rollout=sampled_by("Base"))


def test_a_faithful_copy_is_as_good_as_the_engine_and_one_that_says_nothing_is_named(run):
    said = {}
    for name in ("Copied", "Silent"):
        text = io.StringIO()
        done = run(name=name, rollout=sampled_by(name), console=Console(file=text, width=1000))
        said[name] = text.getvalue(), load_file(done.final / "model.safetensors")
    assert "cannot show which weights it holds" in said["Silent"][0]
    assert "cannot show which weights it holds" not in said["Copied"][0]
    usual = load_file(run(name="usual").final / "model.safetensors")
    for _, weights in said.values():
        assert all(torch.equal(usual[name], weights[name]) for name in usual)


def test_a_bound_that_is_raised_lets_a_coarse_sampler_go_on(run):
    with pytest.raises(UserError, match=r"rollout\.max_mismatch = 0\.25"):
        run(rollout=sampled_by("SilentNoisy"))
    run(name="coarse", rollout=sampled_by("SilentNoisy", max_mismatch=1000.0))


def test_a_fingerprint_tells_one_step_from_the_next_and_one_name_from_another(small_model):
    before = fingerprint(small_model)
    assert fingerprint(small_model) == before
    with torch.no_grad():
        small_model.model.layers[1].mlp.up_proj.weight.add_(1e-8)
    assert fingerprint(small_model) != before
    first, second = small_model.model.layers
    swapped = fingerprint(small_model)
    first.mlp.up_proj, second.mlp.up_proj = second.mlp.up_proj, first.mlp.up_proj
    assert fingerprint(small_model) != swapped


def test_a_packed_copy_that_was_not_renewed_is_found_out(run, monkeypatch):
    """What decoding reads is found to be old by a count, which whoever writes to weights has to raise."""
    monkeypatch.setattr(torch.autograd.graph, "increment_version", lambda *_: None)
    with pytest.raises(UserError, match="holds other ones than were published"):
        run()


def test_what_is_said_of_a_gap_is_what_can_be_done_about_it():
    for rollout, says, never in (
        ({"precision": "int8"}, 'rollout.precision = "int8" rounds what the sampler multiplies by', "publish"),
        ({}, "damaged on their way, or in memory", "publish"),
        ({"sampler": "vllm"}, "nobody else gives the server weights", "publish"),
        ({"sampler": "mine:Sampler"}, "See to its `publish`", "int8"),
    ):
        stage = Stage(task=Task(source="?"), rollout=Rollout.model_validate(rollout))
        with pytest.raises(UserError, match=says) as caught:
            refuse_apart(1.0, stage, 3, "of the canary")
        assert never not in str(caught.value)
