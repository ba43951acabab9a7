"""Learner, samplers and rewards as actors of Ray: the bits of one process, also where any of them is killed."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
from dataclasses import replace

import psutil
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file
from vowels import share_of_vowels

from cohort.backends.cluster.actors import LearnerActor, SamplerActor
from cohort.backends.cluster.backend import Cluster as Backend
from cohort.backends.cluster.backend import refuse_several
from cohort.backends.cluster.door import Surroundings, connected
from cohort.backends.cluster.examine import examine_cluster
from cohort.backends.cluster.samplers import Samplers
from cohort.backends.cluster.scoring import ClusterPool
from cohort.preflight.objective import settled_objective
from cohort.recipe import Recipe
from cohort.rewards.failure import GroupLost
from cohort.settings import Cluster, Stage, Task
from cohort.settings import Policy as PolicyTable
from cohort.train import train
from cohort.types import UserError
from cohort.views.console import Console

HERE = {"address": "local", "deadline_s": 240}


@pytest.fixture(scope="module")
def ray():
    found = pytest.importorskip("ray", reason="needs the extra ray: make test-cluster")
    yield found
    found.shutdown()


@pytest.fixture
def run(tmp_path, checkpoint_dir):
    """Train a small recipe with a [cluster] table, or without one."""
    rows = tmp_path / "mine.jsonl"
    lines = [{"question": f"What is {i} plus {i + 1}?", "solution": str(2 * i + 1)} for i in range(24)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def start(name, steps=4, **cluster):
        torch.set_num_threads(1)
        tables = {
            "policy": {"model": str(checkpoint_dir)},
            "task": {"source": str(rows), "prompt": "question", "answer": "solution"},
            "rollout": {"prompts_per_step": 3, "group_size": 4, "max_tokens": 8},
            "reward": [{"use": share_of_vowels, "name": "vowels"}],
            "objective": {"preset": "dr_grpo", "kl_coef": 0.05},
            "optimizer": {"learning_rate": 1e-2},
            "evaluate": {"problems": 0},
            "run": {"steps": steps, "save_every": 2, "directory": str(tmp_path / "runs"), "threads": 1, "gate": "off"},
        }
        return train(Recipe(name=name, seed=1, cluster=cluster, **tables), console=Console(quiet=True))

    return start


def weights(done):
    return load_file(done.final / "model.safetensors")


def rollouts(done):
    """Of every step its tickets, and all tokens with their log-probs."""
    found = []
    for path in sorted((done.directory / "log").glob("step-*.parquet")):
        rows = pyarrow.parquet.read_table(path).to_pylist()
        found.append([(row["ticket"], list(row["tokens"]), list(row["logprobs"])) for row in rows])
    return found


def same(one, other):
    ours, theirs = weights(one), weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert rollouts(one) == rollouts(other)


def kill(kind, how=signal.SIGKILL):
    """Send a signal to all actors of a kind; how many there were."""
    found = [
        one
        for one in psutil.Process().children(recursive=True)
        if one.status() != psutil.STATUS_ZOMBIE and "".join(one.cmdline()).startswith(f"ray::{kind}")
    ]
    for one in found:
        os.kill(one.pid, how)
    return len(found)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_cluster_has_the_bits_of_one_process(run, ray):
    same(run("alone"), run("clustered", **HERE))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_death_costs_a_retry_and_no_bit(run, ray, monkeypatch):
    alone, killed = run("alone"), []
    sample, update, submit, publish = Samplers.sample, Backend.update, ClusterPool.submit, Backend.publish

    def sampled(self, requests):
        for number, found in enumerate(sample(self, requests)):
            if number == 0 and self.version in (0, 2):  # the others of its groups are under way
                killed.append(("sampler", kill("SamplerActor")))
            yield found

    def updated(self, batch, rate):
        if batch.version in (1, 4):  # before anything is saved, and after it
            killed.append(("learner", kill("LearnerActor")))
        return update(self, batch, rate)

    def submitted(self, item):
        if len(killed) == 2:
            killed.append(("reward", kill("RewardActor")))
        return submit(self, item)

    def published(self, version):
        if version == 3:  # it has learnt, and nobody has the weights
            killed.append(("learner", kill("LearnerActor")))
        return publish(self, version)

    monkeypatch.setattr("cohort.backends.cluster.backend.MOST", 2)  # so that it is saved for the journal, too
    monkeypatch.setattr(Samplers, "sample", sampled)
    monkeypatch.setattr(Backend, "update", updated)
    monkeypatch.setattr(ClusterPool, "submit", submitted)
    monkeypatch.setattr(Backend, "publish", published)
    hurt = run("hurt", **HERE)
    assert {who for who, _ in killed} == {"sampler", "learner", "reward"}
    assert all(count for _, count in killed)
    same(alone, hurt)
    tickets = [ticket for step in rollouts(hurt) for ticket in dict.fromkeys(ticket for ticket, _, _ in step)]
    assert tickets == sorted(set(tickets))
    assert len(tickets) == 4 * 3  # every prompt was trained on once


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_sampler_that_hangs_is_a_sentence_within_its_deadline(run, ray, monkeypatch):
    sample = Samplers.sample

    def stopped(self, requests):
        for found in sample(self, requests):
            kill("SamplerActor", signal.SIGSTOP)
            yield found

    monkeypatch.setattr(Samplers, "sample", stopped)
    with pytest.raises(UserError, match=r"step 0: the driver waited for sampler 0, which .* within") as caught:
        run("hangs", steps=1, **{**HERE, "deadline_s": 60, "retries": 0})
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_of_each_learn_what_one_of_each_learns(run, ray):
    alone, two = run("alone", steps=2), run("two", steps=2, learners=2, samplers=2, rewards=2, **HERE)
    for one, other in zip(rollouts(alone)[0], rollouts(two)[0], strict=True):
        assert one[:2] == other[:2]
    first, second = (next(line["grad_norm"] for line in done.metrics if line["step"] == 1) for done in (alone, two))
    assert second == pytest.approx(first, rel=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_the_doctor_looks_at_every_node(ray, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (node,) = examine_cluster("local")
    assert node.would_not_work == ()
    assert node.mb_per_s > 1
    assert abs(node.clock_s) < 1
    assert not list(tmp_path.iterdir())


def a_stage(**cluster):
    table = Cluster(**{"address": "local", **cluster})
    return Stage(task=Task(source="word_problems"), policy=PolicyTable(model="m"), cluster=table)


def test_a_group_that_is_lost_says_so_in_another_process():
    lost = pickle.loads(pickle.dumps(GroupLost("no answer", "mine", True, {"mine": 2})))
    assert (str(lost), lost.reward, lost.timeout, lost.retries) == ("no answer", "mine", True, {"mine": 2})


def test_without_ray_it_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"needs Ray, and it is not installed: pip install 'cohort\[ray\]'"):
        connected("local")


@pytest.mark.timeout(120)
def test_a_cluster_that_is_not_there_is_one_sentence():
    pytest.importorskip("ray", reason="needs the extra ray: make test-cluster").shutdown()
    with pytest.raises(UserError, match=r"the Ray cluster at cluster\.address = 'auto' cannot be joined"):
        connected("auto")


def test_versions_that_differ_and_directories_that_are_not_shared_are_named(tmp_path):
    here = Surroundings.here(a_stage())
    with pytest.raises(UserError, match=r"sampler 0 on .* has torch .* and not 1\.0, as the driver has"):
        replace(here, versions={**here.versions, "torch": "1.0"}).enter("sampler 0")
    with pytest.raises(UserError, match=r"learner 1 on .* does not see .*: share that directory"):
        replace(here, directory=str(tmp_path / "nowhere")).enter("learner 1")


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"objective": {"preset": "ppo"}}, 'cannot have objective.baseline = "critic"'),
        ({"rollout": {"sampler": "vllm"}}, "rollout.sampler = 'vllm'"),
        ({"rollout": {"over_sample": 2}}, "rollout.over_sample needs the engine of this process"),
        ({"policy": {"model": "live"}}, "a model object cannot go to a cluster"),
    ],
)
def test_what_a_cluster_cannot_do_is_refused(tables, says):
    stage = Stage(
        **{"task": Task(source="word_problems"), "policy": {"model": "m"}, "cluster": {"learners": 2}, **tables}
    )
    with pytest.raises(UserError, match=says):
        refuse_several(stage, settled_objective(stage))


def test_a_sampler_with_other_weights_than_the_learner_gets_no_work(checkpoint_dir):
    from cohort.backends.base import Origin
    from cohort.policy.load import Start

    stage = a_stage().model_copy(update={"policy": PolicyTable(model=str(checkpoint_dir))})
    learner, sampler = LearnerActor(), SamplerActor()
    learner.open(stage, settled_objective(stage), Origin(1, Start(), list), 0, 1, "")
    claim, sent = learner.publish(3)
    sampler.open(learner.blueprint(), stage)
    sampler.load(claim, sent)
    name = next(one for one in sent if "layers.1" in one)
    broken = {**sent, name: sent[name][::-1].copy()}
    with pytest.raises(UserError, match="weights of step 3: the sampler holds other ones than were published"):
        sampler.load(claim, broken)
