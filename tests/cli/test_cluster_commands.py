"""What is wrong with a cluster, a server or a key is one sentence on the command line, and no run begins."""

from __future__ import annotations

import json
import signal
import socket
import sys
from dataclasses import replace

import pytest
from clusters import kill
from fake_vllm import FakeVllm, stand_in

from cohort.backends.cluster.door import Surroundings
from cohort.backends.cluster.samplers import Samplers
from tiny import make_tiny

LOCAL = ("cluster.address=local", "cluster.deadline_s=200", "evaluate.problems=0", "run.gate=off")
SERVED = ("rollout.sampler=vllm", "evaluate.problems=0", "run.gate=off", "rollout.vllm.retries=0")


@pytest.fixture
def fake(desk):
    made = FakeVllm(str(desk / "base"))
    yield made
    made.close()


@pytest.fixture
def refused(desk, cohort):
    """Train with these words; what is said, which is one sentence."""

    def call(*words):
        code, _, err = cohort("train", "recipe.toml", *words)
        (said,) = [line for line in err.splitlines() if line.startswith("error: ")]
        assert code == 1
        assert not (desk / "runs" / "mine" / "metrics.jsonl").exists()
        return said

    return call


def test_no_ray(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    for words in (LOCAL, (*LOCAL, "--dry-run")):
        assert "needs Ray, and it is not installed: pip install 'cohort[ray]'" in refused(*words)


def test_what_a_cluster_cannot_do_is_refused_before_anything_begins(refused, desk):
    said = refused(*LOCAL, "cluster.learners=2", "objective.preset=ppo")
    assert 'cluster.learners = 2 cannot have objective.baseline = "critic"' in said
    assert not (desk / "runs").exists()


def test_a_port_that_is_taken(refused, desk, fake):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(*SERVED, f"rollout.vllm.python={stand_in(desk, fake)}", f"rollout.vllm.port={port}")
    assert f"port {port} is taken by another program: set rollout.vllm.port, or leave it out" in said


def test_a_key_that_is_wrong(refused, fake, monkeypatch):
    fake.key = "right"
    monkeypatch.setenv("VLLM_KEY", "wrong")
    said = refused(*SERVED, f"rollout.vllm.url={fake.root}/v1", "rollout.vllm.api_key_env=VLLM_KEY")
    assert "does not take the key (HTTP 401" in said
    assert "see rollout.vllm.api_key_env" in said


def test_a_server_with_another_model(refused, desk, fake, tokenizer):
    make_tiny("qwen3", tokenizer).save_pretrained(desk / "other")
    fake.begin(str(desk / "other"))
    said = refused(*SERVED, f"rollout.vllm.url={fake.root}/v1")
    assert "did not take the weights of step 0" in said
    assert "it must serve the model that is trained" in said


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_dry_run_says_where_actors_would_be_and_what_the_cluster_has_not(desk, cohort, ray):
    code, out, err = cohort("train", "recipe.toml", *LOCAL, "cluster.samplers=2", "--dry-run", "--json")
    (stage,) = json.loads(out)["stages"]
    assert code == 0
    assert stage["placement"].startswith("1 learner, 2 samplers and 1 reward actor, Ray at local; on 1 node: ")
    assert not (desk / "runs").exists()
    code, _, err = cohort("train", "recipe.toml", *LOCAL, "cluster.gpus=1", "--dry-run")
    assert code == 1
    assert "the cluster has 0 GPUs, and its 2 actors ask for 2 (cluster.gpus = 1 each): add nodes" in err


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_versions_that_differ(refused, ray, monkeypatch):
    here = Surroundings.here
    monkeypatch.setattr(
        Surroundings, "here", lambda stage: replace(own := here(stage), versions={**own.versions, "peft": "0.1"})
    )
    said = refused(*LOCAL)
    assert "learner 0 on " in said
    assert " and not 0.1, as the driver has: install the same there" in said


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_what_vanishes_and_has_no_retries_left(desk, cohort, ray, monkeypatch):
    sample = Samplers.sample

    def gone(self, requests):
        kill("SamplerActor", signal.SIGKILL)
        return sample(self, requests)

    monkeypatch.setattr(Samplers, "sample", gone)
    code, _, err = cohort("train", "recipe.toml", *LOCAL, "cluster.retries=0")
    (said,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 1
    assert "sampler 0 died (" in said
    assert "1 time while these groups were drawn (cluster.retries)" in said
