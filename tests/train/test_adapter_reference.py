"""A stage that starts from an adapter has one reference, whatever its recipe says of LoRA: the adapter as it was."""

from __future__ import annotations

from typing import Any

import pytest
from safetensors.torch import load_file

from cohort.recipe import Recipe
from cohort.train.run import prepare
from cohort.types import UserError

LORA = {"rank": 2, "alpha": 4}
FAST = {"learning_rate": 0.02}


@pytest.fixture
def first(run):
    """A run that leaves an adapter which has learnt something."""
    return run(name="first", policy={"lora": LORA}, objective={"preset": "grpo"}, optimizer=FAST)


def weights(done):
    return load_file(done.final / "adapter_model.safetensors")


@pytest.mark.parametrize("lora", [LORA, None])
def test_the_kl_starts_at_zero_and_grows(run, first, lora):
    policy = {"model": str(first.final), "lora": lora}
    done = run(name="second", policy=policy, objective={"preset": "grpo"}, optimizer=FAST)
    found = [line["policy/kl"] for line in done.metrics if line.get("policy/kl") is not None]
    assert found[0] == pytest.approx(0, abs=1e-9)
    assert found[-1] > 1e-6
    assert any((weights(done)[name] != old).any() for name, old in weights(first).items())


def test_it_resumes_exactly(run, first):
    options = {"policy": {"model": str(first.final)}, "objective": {"preset": "grpo"}, "optimizer": FAST}
    whole = run(name="whole", run={"steps": 4, "save_every": 2}, **options)
    run(name="part", run={"steps": 2, "save_every": 2}, **options)
    part = run(name="part", resume=True, run={"steps": 4, "save_every": 2}, **options)
    assert [line["policy/kl"] for line in part.metrics[-2:]] == [line["policy/kl"] for line in whole.metrics[-2:]]
    for name, value in weights(whole).items():
        assert (weights(part)[name] == value).all(), name


def test_it_is_known_before_a_model_loads(tables, first):
    tables = {**tables, "policy": {"model": str(first.final)}, "objective": {"preset": "grpo"}}
    prepared: Any = prepare(Recipe(**tables))[0].prepared
    assert prepared.objective.needs_reference


def test_it_cannot_move(run, first):
    with pytest.raises(UserError, match=r"stays so: remove the \[reference\] table"):
        run(name="x", policy={"model": str(first.final)}, objective={"preset": "grpo"}, reference={"ema": 0.9})
