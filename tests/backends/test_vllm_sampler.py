"""`rollout.sampler = "vllm"` against a local server that speaks vLLM's routes. With vLLM itself: test_vllm.py."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from typing import Any

import pytest
import torch
from clusters import rollouts, tickets
from fake_vllm import FakeVllm, stand_in

from cohort.backends.base import open_sampler
from cohort.backends.proving import asks_canary, claimed, prove
from cohort.backends.vllm import Vllm as VllmSampler
from cohort.engine.engine import Engine
from cohort.policy.adapters import add_lora
from cohort.policy.load import load_policy
from cohort.settings import Lora, Rollout, Stage, Task, Vllm
from cohort.types import SampleRequest, Sampling, UserError

HOW = Sampling(max_tokens=8, temperature=0.9)
ASKED = [SampleRequest(0, (5, 9, 17), 3, 11, HOW), SampleRequest(1, (33, 12), 2, 12, HOW)]


@pytest.fixture
def fake(checkpoint_dir):
    made = FakeVllm(str(checkpoint_dir))
    yield made
    made.close()


@pytest.fixture
def policy(checkpoint_dir):
    return load_policy(str(checkpoint_dir))


def at(fake, **more):
    return Rollout(sampler="vllm", vllm=Vllm(**{"url": f"{fake.root}/v1", "retries": 1, "start_s": 5, **more}))


def owned(fake, tmp_path, **more):
    return Rollout(sampler="vllm", vllm=Vllm(python=str(stand_in(tmp_path, fake)), start_s=60, **more))


def publish(sampler, policy, version, rollout):
    sampler.publish(version)
    stage = Stage(task=Task(source="word_problems"), rollout=rollout)
    return prove(claimed(policy, version, asks_canary(sampler, version)), sampler, stage)


def drawn(sampler):
    return {request.key: completions for request, completions in sampler.sample(ASKED)}


def as_the_engine(sampler, policy):
    ours, theirs = drawn(Engine(policy)), drawn(sampler)
    for key, completions in ours.items():
        for here, there in zip(completions, theirs[key], strict=True):
            assert list(here.tokens) == list(there.tokens)
            assert torch.allclose(torch.tensor(list(here.logprobs)), torch.tensor(list(there.logprobs)), atol=1e-4)
            assert (here.finish, sampler.version) == (there.finish, there.version)


@torch.no_grad()
def move(policy, by=0.5):
    for weight in policy.module.parameters():
        if weight.requires_grad:
            weight += by * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)) * 0.1


def test_a_server_samples_from_every_version_what_the_engine_samples(fake, policy):
    rollout = at(fake)
    sampler = open_sampler(policy, rollout)
    publish(sampler, policy, 0, rollout)
    as_the_engine(sampler, policy)
    move(policy)
    publish(sampler, policy, 3, rollout)
    as_the_engine(sampler, policy)
    routes = [route for route, _ in fake.asked]
    assert routes.count("/collective_rpc") == routes.count("/reset_prefix_cache") == 2
    assert sum("prompt_logprobs" in body for _, body in fake.asked) == 2  # a canary each, at version 3, too


def test_an_adapter_alone_is_sent_and_the_old_one_goes(fake, policy, checkpoint_dir):
    policy, rollout = add_lora(policy, Lora(rank=2, targets=("q_proj",)), seed=3), at(fake)
    sampler = open_sampler(policy, rollout)
    for version in range(3):
        move(policy)
        publish(sampler, policy, version, rollout)
    as_the_engine(sampler, policy)
    assert len(fake.adapters) == 1
    assert not any(route == "/collective_rpc" for route, _ in fake.asked)


def test_a_server_that_is_killed_is_started_anew_and_proves_its_weights(fake, policy, tmp_path):
    rollout = owned(fake, tmp_path)
    sampler: Any = open_sampler(policy, rollout)
    publish(sampler, policy, 0, rollout)
    move(policy)
    publish(sampler, policy, 1, rollout)
    for _ in range(2):  # in a step
        os.kill(_server(sampler), signal.SIGKILL)
        as_the_engine(sampler, policy)
    os.kill(_server(sampler), signal.SIGKILL)  # and between steps
    move(policy)
    publish(sampler, policy, 2, rollout)
    as_the_engine(sampler, policy)
    sampler.close()


def _server(sampler):
    import psutil

    return psutil.Process(sampler._server._process.pid).children()[0].pid


def test_a_server_that_returns_with_other_weights_gets_no_work(fake, policy, tmp_path, checkpoint_dir):
    rollout = at(fake)
    sampler = open_sampler(policy, rollout)
    move(policy)
    publish(sampler, policy, 1, rollout)
    fake.begin(str(checkpoint_dir))  # somebody has started it again
    fake.script, fake.deaf = ["drop"], True
    with pytest.raises(UserError, match="holds other weights than those of step 1"):
        drawn(sampler)
    fake.script, fake.deaf = ["drop"], False
    as_the_engine(sampler, policy)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"key": "right"}, "does not take the key"),
        ({"dev": False}, "has no route /collective_rpc: start it with VLLM_SERVER_DEV_MODE=1"),
        ({"raw": True}, "start it with --logprobs-mode processed_logprobs"),
        ({"deaf": True}, "log-probs of the canary, a fixed text, are"),
        ({"script": [503] * 9}, "HTTP 503"),
    ],
)
def test_what_is_wrong_with_a_server_is_one_sentence(fake, policy, change, says):
    move(policy)
    for name, value in change.items():
        setattr(fake, name, value)
    with pytest.raises(UserError, match=says) as caught:
        publish(open_sampler(policy, rollout := at(fake)), policy, 0, rollout)
    assert "\n" not in str(caught.value)


def test_a_server_that_hangs_or_dies_for_good_is_named_within_its_deadline(fake, policy):
    sampler = open_sampler(policy, rollout := at(fake, timeout_s=2, retries=0, start_s=1))
    publish(sampler, policy, 0, rollout)
    fake.script = [3.2] * 9
    with pytest.raises(UserError, match=r"(gave no answer in 1 tries; |was lost \()ReadTimeout"):
        drawn(sampler)
    fake.close()
    with pytest.raises(UserError, match=r"did not return: .* does not answer \(ConnectE"):
        drawn(sampler)


def test_another_model_is_refused(fake, policy, tokenizer, tmp_path):
    from tiny import make_tiny

    make_tiny("qwen2", tokenizer).save_pretrained(tmp_path / "other")
    fake.begin(str(tmp_path / "other"))
    with pytest.raises(UserError, match=r"did not take the weights of step 0 .* must serve the model that is trained"):
        open_sampler(policy, at(fake)).publish(0)


def test_a_python_without_vllm_and_a_port_that_is_taken_are_told(policy):
    with pytest.raises(UserError, match=r"No module named 'vllm'.*pip install"):
        open_sampler(policy, Rollout(sampler="vllm", vllm=Vllm(python=sys.executable))).publish(0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is taken"):
            open_sampler(policy, Rollout(sampler="vllm", vllm=Vllm(port=port))).publish(0)


def test_a_server_draws_the_groups_of_the_next_step_while_the_learner_works(run, fake, monkeypatch):
    """Its weights are its own. What comes of it is what the engine and the learner do in turn."""
    sample, apart = VllmSampler.sample, []

    def sampled(self, requests):
        apart.append(threading.current_thread() is not threading.main_thread())
        return sample(self, requests)

    monkeypatch.setattr(VllmSampler, "sample", sampled)
    server = {"sampler": "vllm", "vllm": {"url": f"{fake.root}/v1"}}
    alone, served = (run(name, 3, {"max_staleness": 1, **how}) for name, how in (("alone", {}), ("served", server)))
    assert apart == [False, True, True]  # the first groups of all are waited for
    for ours, theirs in zip(rollouts(alone)[:2], rollouts(served)[:2], strict=True):
        assert [one[:2] for one in ours] == [one[:2] for one in theirs]
    assert tickets(served) == [*range(3 * 3)]
