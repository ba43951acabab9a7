"""What a caller has set for torch changes no bit of a run, and is there again afterwards; and models that cannot be
trained as they are.

Siblings that are tried: three default dtypes, in a run and in an engine and a learner of one's own, on both paths; a
default device; autocast; no_grad; inference_mode; a model that is frozen, made for inference, without weights,
compiled, without a tokenizer.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cohort.algorithms import objectives
from cohort.engine.engine import Engine
from cohort.learn.critic import Critic
from cohort.learn.learner import Learner
from cohort.policy.load import Start, open_policy
from cohort.policy.policy import Policy
from cohort.settings import Critic as CriticTable
from cohort.settings import Optimizer
from cohort.settings import Policy as PolicyTable
from cohort.train.sft import supervised_batch
from cohort.types import SampleRequest, Sampling, UserError
from tiny import make_tiny, on_path

NARROW = [torch.bfloat16, torch.float16, torch.float64]


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device(name):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    **{f"default {dtype}": functools.partial(default_dtype, dtype) for dtype in NARROW},
    "default device": functools.partial(default_device, "meta"),
    "autocast": functools.partial(torch.autocast, "cpu", dtype=torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


def test_what_is_set_for_torch_changes_no_bit_of_a_run(run, tables):
    del tables["task"]["held_out"], tables["evaluate"]
    changes = {"objective": {"preset": "ppo"}, "run": {"steps": 2, "save_every": 0}}
    expected = load_file(run(**changes, name="plain").final / "model.safetensors")
    for name, setting in SETTINGS.items():
        with setting():
            before = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
            found = run(**changes, name=name.replace(" ", "-").replace("torch.", "")).final
            assert before == (torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled())
        again = load_file(found / "model.safetensors")
        assert all(torch.equal(again[key], value) for key, value in expected.items()), name


@pytest.mark.parametrize("kind", ["qwen3", "llama-bias"])
@pytest.mark.parametrize("path", ["fused", "plain"])
def test_a_default_dtype_changes_no_bit_of_samples_and_updates(kind, path, tokenizer):
    """A buffer of another width than its C function reads was a corrupted heap."""

    def drawn_and_trained():
        policy = on_path(Policy(model, tokenizer), path)
        request = SampleRequest(0, tuple(range(20, 30)), 3, 1, Sampling(max_tokens=12))
        _, completions = next(Engine(policy).sample([request]))
        batch = supervised_batch([([20, 21, 22], [30, 31, 32, 33], [True] * 4)])
        critic = Critic(policy, Optimizer(), CriticTable())
        critic.update(batch, torch.ones(4), critic.values(batch), 1e-2)
        report = Learner(policy, objectives.preset("dr_grpo"), Optimizer()).update(batch, 1e-2)
        rows = [(tuple(completion.tokens), tuple(completion.logprobs)) for completion in completions]
        return rows, report.metrics["loss"], [p.detach().clone() for p in policy.module.parameters()]

    model = make_tiny(kind, tokenizer)
    rows, loss, weights = drawn_and_trained()
    for dtype in NARROW:
        model = make_tiny(kind, tokenizer)
        with default_dtype(dtype):
            again = drawn_and_trained()
        assert again[:2] == (rows, loss)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(again[2], weights, strict=True))


def live(model, tokenizer):
    return open_policy(PolicyTable(model="live"), 0, Start(live=(model, tokenizer)), list)


def test_a_model_that_is_all_frozen_is_refused(tokenizer):
    policy = live(make_tiny("llama", tokenizer).requires_grad_(False), tokenizer)
    with pytest.raises(UserError, match="all weights of the model are frozen"):
        Learner(policy, objectives.preset("dr_grpo"), Optimizer())


def test_models_that_cannot_be_trained_as_they_are(tokenizer):
    with torch.inference_mode():
        made = make_tiny("llama", tokenizer)
    with pytest.raises(UserError, match=r"made under torch\.inference_mode"):
        live(made, tokenizer)
    with pytest.raises(UserError, match="has no weights"):
        live(make_tiny("llama", tokenizer).to("meta"), tokenizer)
    for none in (None, "some/where"):
        with pytest.raises(UserError, match="tokenizer is a tokenizer object"):
            live(make_tiny("llama", tokenizer), none)
    assert live(torch.compile(make_tiny("llama", tokenizer)), tokenizer).fused is not None
