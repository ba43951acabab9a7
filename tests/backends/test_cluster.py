"""Learner, samplers and rewards as actors of Ray: the bits of one process, also where any of them is killed."""

from __future__ import annotations

import pickle
import signal
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from clusters import HERE, kill, rollouts, same, tickets
from fake_vllm import FakeVllm, stand_in

from cohort.backends.base import Origin
from cohort.backends.cluster.actors import LearnerActor, SamplerActor
from cohort.backends.cluster.backend import Cluster as Backend
from cohort.backends.cluster.backend import refuse_several
from cohort.backends.cluster.door import Actor, Surroundings, connected
from cohort.backends.cluster.examine import examine_cluster
from cohort.backends.cluster.samplers import Samplers
from cohort.backends.cluster.scoring import ClusterPool
from cohort.backends.proving import Fingerprint
from cohort.commands.diagnose import diagnose
from cohort.commands.verify import checked
from cohort.patience import in_a_thread
from cohort.policy.load import Start
from cohort.preflight.objective import settled_objective
from cohort.record.rollouts import read_groups
from cohort.rewards.failure import GroupLost
from cohort.settings import Cluster, Rollout, Stage, Task, Vllm
from cohort.settings import Policy as PolicyTable
from cohort.types import SampleRequest, Sampling, UserError
from cohort.views.dashboard.export import report
from cohort.views.dashboard.runs import RunFiles


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_cluster_has_the_bits_of_one_process_and_a_record_that_others_can_check(run, ray):
    done = run("clustered", **HERE)
    same(run("alone"), done)
    found = checked(done.directory, 4, None, "")
    assert found["holds"], [one for one in found["checks"] if one["status"] == "failed"]
    assert found["level"] == 4
    assert not [one for one in found["checks"] if one["status"] == "skipped"]
    (stage,) = diagnose(done.directory)["stages"]
    assert stage["steps"] == 4
    assert [one["detector"] for one in stage["findings"]] == ["truncation"]
    page = report(RunFiles(done.directory, "clustered"))
    assert "vowels" in page
    assert "cut off at rollout.max_tokens" in page


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
    assert tickets(hurt) == [*range(4 * 3)]  # every prompt was trained on once


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_samplers_draw_while_the_learner_works_and_one_that_dies_then_gets_the_weights_it_had(run, ray, monkeypatch):
    alone, killed, learnt = run("alone", rollout={"max_staleness": 1}), [], threading.Event()
    sample, update = Samplers.sample, Backend.update

    def sampled(self, requests):
        for number, found in enumerate(sample(self, requests)):
            if number == 0 and self.version == 2:
                assert threading.current_thread() is not threading.main_thread()
                assert learnt.wait(200)  # the learner has other weights by now
                killed.append(kill("SamplerActor"))
            yield found

    def updated(self, batch, rate):
        found = update(self, batch, rate)
        if batch.version == 3:
            learnt.set()
        return found

    monkeypatch.setattr(Samplers, "sample", sampled)
    monkeypatch.setattr(Backend, "update", updated)
    ahead = run("ahead", rollout={"max_staleness": 1}, **HERE)
    assert killed == [1]
    same(alone, ahead)


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
    found = checked(two.directory, 4, None, "")
    assert found["holds"], [one for one in found["checks"] if one["status"] == "failed"]
    assert "of their size, as several learners added up its gradients" in str(found["checks"])


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
    if any(one.info["name"] == "gcs_server" for one in psutil.process_iter(["name"])):
        pytest.skip("this machine has a Ray cluster of somebody else")
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
        (
            {"rollout": {"sampler": "vllm", "vllm": {"url": "http://gpu"}}, "cluster": {"samplers": 2}},
            "rollout.vllm.url = 'http://gpu' is one server, and cluster.samplers = 2",
        ),
        ({"rollout": {"over_sample": 2}}, "rollout.over_sample needs the engine of this process"),
        ({"policy": {"model": "live"}}, "a model object cannot go to a cluster"),
    ],
)
def test_what_a_cluster_cannot_do_is_refused(tables, says):
    given = {"task": Task(source="word_problems"), "policy": {"model": "m"}, "cluster": {"learners": 2}, **tables}
    stage = Stage(**given)
    with pytest.raises(UserError, match=says):
        refuse_several(stage, settled_objective(stage))


@pytest.mark.parametrize("how", ["off", "keep"])
def test_a_proof_is_heard_before_anything_is_drawn_and_at_once_where_weights_come_into_a_draw(how):
    def answer(ref, who):
        raise UserError(f"{who} holds other weights")

    load = SimpleNamespace(remote=lambda claim, weights: "a place")
    stage = a_stage().model_copy(update={"rollout": Rollout(max_staleness=1, in_flight=how)})
    door: Any = SimpleNamespace(answer=answer)
    samplers = Samplers(door, stage, bytes)
    samplers._actors = [Actor(SimpleNamespace(load=load), "sampler 0")]  # it cannot be asked for anything else
    refused = pytest.raises(UserError, match="sampler 0 holds other weights")
    with nullcontext() if how == "off" else refused:
        samplers.take(Fingerprint(3, "digest"), None)
    if how == "off":
        with refused:
            next(iter(samplers.sample([SampleRequest(0, (5, 9), 1, 11, Sampling(max_tokens=4))])))


@pytest.fixture
def learner(checkpoint_dir):
    """A learner in this process, and its stage."""
    stage = a_stage().model_copy(update={"policy": PolicyTable(model=str(checkpoint_dir))})
    made = LearnerActor()
    made.open(stage, settled_objective(stage), Origin(1, Start(), list), 0, 1, "")
    return made, stage


def test_a_sampler_with_other_weights_than_the_learner_gets_no_work(learner):
    learner, stage = learner
    sampler = SamplerActor()
    claim, sent = learner.publish(3)
    sampler.open(learner.blueprint(), stage)
    sampler.load(claim, sent)
    name = next(one for one in sent if "layers.1" in one)
    broken = {**sent, name: sent[name][::-1].copy()}
    with pytest.raises(UserError, match="weights of step 3: the sampler holds other ones than were published"):
        sampler.load(claim, broken)


def test_a_sampler_takes_weights_between_two_tokens_and_proves_them_there(learner):
    """While `more` decodes in another thread, and between two calls of it; other weights than claimed are refused."""
    learner, stage = learner
    sampler, asked = SamplerActor(), Sampling(max_tokens=40)
    ahead = Rollout(max_staleness=1, in_flight="recompute")
    sampler.open(learner.blueprint(), stage.model_copy(update={"rollout": ahead}))
    sampler.load(*learner.publish(0))
    between, at, drawing = sampler._between, iter(range(10**6)), threading.Event()

    def waits():
        if next(at) in (4, 50):
            drawing.set()
            while sampler._arrived is None:
                time.sleep(0.001)
        between()

    def new(version):
        with torch.no_grad():
            for one in learner._backend.policy.module.parameters():
                one.mul_(1.02)
        return learner.publish(version)

    sampler._between = waits
    short = replace(asked, max_tokens=12)
    sampler.begin([SampleRequest(0, (5, 9, 17), 2, 11, short), SampleRequest(1, (6, 8), 2, 12, asked)])
    first = in_a_thread(sampler.more)
    assert drawing.wait(60)
    drawing.clear()
    sampler.load(*new(1))
    assert first.result(60)[0] == 0
    sampler.load(*new(2))  # nobody draws
    number, completions = sampler.more()
    assert number == 1
    assert {one.versions for one in completions} == {((0, 0), (5, 1), (12, 2))}
    for one in completions:
        said = learner._backend.sampler.canary((6, 8), list(one.tokens))
        torch.testing.assert_close(torch.tensor(said)[12:], torch.tensor(list(one.logprobs))[12:], atol=1e-5, rtol=0)
    sampler.begin([SampleRequest(0, (5, 9, 17), 2, 11, asked)])
    drawn = in_a_thread(sampler.more)
    assert drawing.wait(60)
    claim, sent = new(3)
    name = next(one for one in sent if "layers.1" in one)
    with pytest.raises(UserError, match="weights of step 3: the sampler holds other ones than were published"):
        sampler.load(claim, {**sent, name: sent[name][::-1].copy()})
    with pytest.raises(UserError, match="weights of step 3: the sampler holds other ones"):
        drawn.result(60)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["keep", "recompute"])
def test_new_weights_come_into_a_draw_and_the_record_says_which_drew_each_token(run, ray, monkeypatch, how):
    """Two rows at once, so that drawing lasts; weights are published when the first group is there."""
    sample, publish, begun = Samplers.sample, Backend.publish, threading.Event()

    def sampled(self, requests):
        for found in sample(self, requests):
            if threading.current_thread() is not threading.main_thread():
                begun.set()
            yield found

    def published(self, version):
        if version > 1:  # what the first two steps learn from is drawn before
            assert begun.wait(200)
            begun.clear()
        return publish(self, version)

    monkeypatch.setattr(Samplers, "sample", sampled)
    monkeypatch.setattr(Backend, "publish", published)
    table = {"max_staleness": 1, "in_flight": how, "max_rows": 2, "max_tokens": 60}
    done = run("flight", rollout=table, objective={"bypass": True, "kl_coef": 0.0}, **HERE)
    assert tickets(done) == [*range(4 * 3)]
    mixed = 0
    for step in range(1, 5):
        for group in read_groups(done.directory / "log" / f"step-{step:06d}.parquet"):
            for one in group.rollouts:
                mixed += bool(one.versions)
                assert {version for version, _, _ in one.spans} <= {*range(max(0, step - 2), step)}
    assert mixed
    found = checked(done.directory, 4, None, "")
    assert found["holds"], [one for one in found["checks"] if one["status"] == "failed"]
    drawn = [str(one) for one in found["checks"] if "log-probs of version" in str(one)]
    assert drawn
    assert ("saw keys and values of several versions" in "".join(drawn)) == (how == "keep")


def test_a_sampler_of_a_cluster_may_be_a_server_which_proves_every_version(learner, checkpoint_dir, tmp_path):
    learner, stage = learner
    asked = [SampleRequest(0, (5, 9, 17), 3, 11, Sampling(max_tokens=8, temperature=0.9))]
    drawn = []
    for kind in ("local", "vllm"):
        fake = FakeVllm(str(checkpoint_dir))
        server = Vllm(python=str(stand_in(tmp_path, fake)), start_s=60) if kind == "vllm" else None
        own = stage.model_copy(update={"rollout": Rollout(sampler=kind, vllm=server)})
        sampler = SamplerActor()
        sampler.open(learner.blueprint(), own)
        for version in (0, 1):
            claim, sent = learner.publish(version)
            sampler.load(claim, sent if version else None)
            sampler.begin(asked)
            drawn.append([(list(one.tokens), one.version) for one in sampler.more()[1]])
        if kind == "vllm":
            name = next(one for one in sent if "layers.1" in one)
            with pytest.raises(UserError, match="weights of step 1: the sampler holds other ones"):
                sampler.load(claim, {**sent, name: sent[name][::-1].copy()})
            fake.deaf = True  # it says that it has read them, and has not
            with torch.no_grad():
                next(learner._backend.policy.module.parameters()).mul_(3)
            with pytest.raises(UserError, match="the sampler holds other weights than the learner"):
                sampler.load(*learner.publish(2))
        sampler.close()
        fake.close()
    assert drawn[:2] == drawn[2:]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_servers_sample_on_a_cluster_and_a_killed_sampler_gets_another(run, ray, checkpoint_dir, tmp_path, monkeypatch):
    fake, sample, killed = FakeVllm(str(checkpoint_dir)), Samplers.sample, []

    def sampled(self, requests):
        for number, found in enumerate(sample(self, requests)):
            if number == 0 and self.version == 1:
                killed.append(kill("SamplerActor"))
            yield found

    monkeypatch.setattr(Samplers, "sample", sampled)
    served = {"sampler": "vllm", "vllm": {"python": str(stand_in(tmp_path, fake)), "start_s": 60}}
    alone, done = run("alone", steps=3), run("served", steps=3, rollout=served, **HERE)
    fake.close()
    assert killed == [1]
    for ours, theirs in zip(rollouts(alone)[:2], rollouts(done)[:2], strict=True):
        assert [one[:2] for one in ours] == [one[:2] for one in theirs]
    assert tickets(done) == [*range(3 * 3)]
    assert sum(route == "/began" for route, _ in fake.asked) == 2
