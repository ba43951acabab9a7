"""What dies or hangs on a cluster costs a retry: the driver, one rank of two, a node, reward actors; each again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from types import SimpleNamespace

import psutil
import pytest
from clusters import HERE, kill, same, tickets

from cohort.backends.cluster.backend import Cluster as Backend
from cohort.backends.cluster.samplers import Samplers
from cohort.backends.cluster.scoring import ClusterPool
from cohort.record.metrics import read_metrics


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_driver_that_is_killed_again_and_again_leaves_no_actor_and_loses_no_bit(run, ray, tmp_path):
    """Killed in its second step, before there is a checkpoint, and in its fourth, after one."""
    alone = run("alone", steps=5)
    recipe = tmp_path / "recipe.toml"
    kept = (alone.directory / "recipe.toml").read_text("utf-8")
    recipe.write_text(kept.replace('name = "alone"', 'name = "killed"'))
    where, mark = tmp_path / "runs" / "killed", uuid.uuid4().hex
    words = [sys.executable, "-m", "cohort", "train", str(recipe), "cluster.address=local", "--resume"]
    path = os.pathsep.join(one for one in sys.path if one)
    environment = {**os.environ, "MARK": mark, "PYTHONPATH": path}
    for after in (1, 3, None):
        with (tmp_path / "said").open("ab") as said:
            driver = subprocess.Popen(words, env=environment, stdout=said, stderr=said)
        if after is None:
            assert driver.wait(300) == 0, (tmp_path / "said").read_text()[-2000:]
        else:
            while not any(line["step"] == after for line in lines(where)):
                assert driver.poll() is None, (tmp_path / "said").read_text()[-2000:]
                time.sleep(0.02)
            assert marked(mark) > 4  # itself, Ray's processes and the actors
            driver.kill()
            driver.wait()
        ended = time.monotonic() + 60
        while marked(mark):
            assert time.monotonic() < ended, "processes of a driver that has gone are still there"
            time.sleep(0.2)
    killed = SimpleNamespace(directory=where, final=where / "final")
    same(alone, killed)
    assert tickets(killed) == [*range(5 * 3)]


def lines(where):
    file = where / "metrics.jsonl"
    return read_metrics(file) if file.is_file() else []


def marked(mark):
    """How many processes have this mark in their environment."""
    found = 0
    for one in psutil.process_iter():
        try:
            found += one.environ().get("MARK") == mark and one.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_one_rank_that_dies_costs_no_bit_of_two(run, ray, monkeypatch):
    whole, killed, update = run("two", steps=3, learners=2, **HERE), [], Backend.update

    def updated(self, batch, rate):
        if batch.version in (2, 3):  # with a checkpoint right behind it, and with a journal
            killed.append(kill("LearnerActor", most=1))
        return update(self, batch, rate)

    monkeypatch.setattr(Backend, "update", updated)
    hurt = run("hurt", steps=3, learners=2, **HERE)
    assert killed == [1, 1]
    same(whole, hurt)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_reward_actors_that_die_and_hang_again_and_again_cost_a_retry(run, ray, monkeypatch):
    alone, signals, submit = run("alone", steps=3), [], ClusterPool.submit

    def submitted(self, item):
        found = submit(self, item)
        if len(signals) < 3 and item.seed % 2:
            how = [signal.SIGSTOP, signal.SIGKILL][len(signals) % 2]
            signals.append((how, kill("RewardActor", how)))
        return found

    monkeypatch.setattr(ClusterPool, "submit", submitted)
    hurt = run("hurt", steps=3, **{**HERE, "deadline_s": 25})
    assert len(signals) == 3
    deadline = time.monotonic() + 20
    while kill("RewardActor", 0) and time.monotonic() < deadline:  # Ray answers before what it kills has ended
        time.sleep(0.1)
    assert kill("RewardActor", 0) == 0  # none of those that hung is left behind
    same(alone, hurt)
    assert tickets(hurt) == [*range(3 * 3)]


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_nodes_that_vanish_cost_a_retry(run, ray, monkeypatch):
    """Learner, sampler and reward have a node each at first; two of the nodes go, and two more are there."""
    from ray.cluster_utils import Cluster as Nodes

    alone = run("alone")
    ray.shutdown()
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    gone = []
    try:
        others = [nodes.add_node(num_cpus=1) for _ in range(5)]
        sample, publish = Samplers.sample, Backend.publish

        def vanish(kind):
            found = ray._private.state.actors().values()
            (at,) = {
                one["Address"]["NodeID"] for one in found if one["ActorClassName"] == kind and one["State"] == "ALIVE"
            }
            nodes.remove_node(next(one for one in others if one.node_id == at), allow_graceful=False)
            gone.append(kind)

        def sampled(self, requests):
            for number, found in enumerate(sample(self, requests)):
                if number == 0 and self.version == 1:
                    vanish("SamplerActor")
                yield found

        def published(self, version):
            if version == 3:
                vanish("LearnerActor")
            return publish(self, version)

        monkeypatch.setattr(Samplers, "sample", sampled)
        monkeypatch.setattr(Backend, "publish", published)
        hurt = run("hurt", address=nodes.address, cpus=1, deadline_s=240)
        assert gone == ["SamplerActor", "LearnerActor"]
        same(alone, hurt)
        assert tickets(hurt) == [*range(4 * 3)]
    finally:
        ray.shutdown()
        nodes.shutdown()
