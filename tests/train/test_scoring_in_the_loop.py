"""Scoring while others are sampled: order, overlap, what fails, when that stops the run, and what the metrics say."""

from __future__ import annotations

import io
import os
import re
import threading
import time
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cohort.monitor.scoring import scoring_metrics
from cohort.record.rollouts import read_groups
from cohort.rewards import Combination, GroupLost, RewardPool, RewardTable, ScoredGroup, resolve_all
from cohort.settings import Rollout as RolloutTable
from cohort.settings import Run as RunTable
from cohort.settings import Stage, Task
from cohort.tasks import Ledger, Renderer
from cohort.train.grpo.stream import GroupStream, StreamSettings
from cohort.types import InfrastructureError, Prompt, Rollout, UserError
from cohort.views.console import Console


def playing(order=lambda requests: requests, between=lambda number: None):
    """Finishes groups in the order that `order` gives; `between` is called after each."""

    def play(requests, prompts):
        for number, request in enumerate(order(list(requests))):
            yield request, tuple(rollout(request.key, member) for member in range(request.count))
            between(number)

    return play


def rollout(ticket, member):
    return Rollout((ticket, member), (True, True), (0.0, 0.0), 0, "stop", f"{ticket}.{member}")


class Letters:
    """A tokenizer: a letter is a token."""

    eos_token_id = None

    def encode(self, text, add_special_tokens=True):
        return [ord(letter) for letter in text]


class Endless:
    size = None

    def __getitem__(self, index):
        return Prompt.make(text=f"prompt {index}", tags={"index": index})


def stream_of(pool, rewards, play, **changes):
    rollout: dict[str, Any] = {"prompts_per_step": 6, "group_size": 2, "max_tokens": 4}
    run: dict[str, Any] = {"failure_budget": 0.5}
    for key in changes.keys() & RunTable.model_fields:
        run[key] = changes.pop(key)
    for key in changes.keys() & RolloutTable.model_fields:
        rollout[key] = changes.pop(key)
    apart = changes.pop("apart", False)
    zero_std, combination = changes.pop("zero_std", "zero"), Combination.of(rewards)
    assert not changes
    stage = Stage(task=Task(source="word_problems"), rollout=RolloutTable(**rollout), run=RunTable(**run))
    settings = StreamSettings(stage, 100, zero_std, combination, seed=0)
    renderer = Renderer(Letters(), "none")
    return GroupStream(Endless(), renderer, Ledger(None, 0), play, pool, settings, lambda *_: (), apart=apart)


@pytest.mark.parametrize("staleness", [0, 2])
def test_groups_leave_in_order_with_their_own_scores_whatever_happens(tmp_path, staleness):
    """Groups finish backwards, three workers race, and of every ten prompts one kills its worker at the first try, one
    finds its server down once, and one hangs for good.
    """

    def troubled(completion, index):
        mark = tmp_path / str(index)
        if index % 10 in (3, 5) and not mark.exists():
            mark.touch()
            if index % 10 == 3:
                os._exit(1)
            raise InfrastructureError("down")
        while index % 10 == 7:
            pass
        return float(completion) * 10  # `ticket.member`: the score says whose it is

    rewards = resolve_all([RewardTable(use=troubled, timeout_s=0.5)])
    with RewardPool(rewards, workers=3, retries=1, backoff_s=0) as pool:
        stream = stream_of(pool, rewards, playing(lambda requests: requests[::-1]), max_staleness=staleness)
        steps = []
        for number in (1, 2, 3):
            steps.append(stream.next(number))
            stream.finish(steps[-1])
    handed_out = [group for step in steps for group in (*step.kept, *step.left_out)]
    assert sorted(group.ticket for group in handed_out) == list(range(len(handed_out)))
    for step in steps:
        assert [group.ticket for group in step.kept] == sorted(group.ticket for group in step.kept)
        assert len(step.kept) == 6  # lost groups were replaced
        for group in step.kept:
            assert group.scores["troubled"] == (group.ticket * 10.0, group.ticket * 10.0 + 1)
            assert group.rewards == group.accuracy == group.scores["troubled"]
    lost = [group for step in steps for group in step.left_out]
    assert [group.ticket % 10 for group in lost] == [7] * len(lost)
    assert lost
    assert all(group.disposition == "error" and group.scores == {} for group in lost)


def test_scoring_overlaps_with_sampling(tmp_path):
    """The sampler does not finish its second group before the first one has been scored."""

    def seen(completion):
        (tmp_path / completion).touch()
        return 1.0

    def wait_for_the_first(number):
        deadline = time.monotonic() + 30
        while number == 0 and not (tmp_path / "0.1").exists():
            assert time.monotonic() < deadline, "nothing is scored while the sampler is at work"
            time.sleep(0.005)

    rewards = resolve_all([RewardTable(use=seen)])
    with RewardPool(rewards, workers=1) as pool:
        assert len(stream_of(pool, rewards, playing(between=wait_for_the_first)).next(1).kept) == 6


@pytest.mark.parametrize("zero_std", ["zero", "resample"])
def test_a_sampler_with_weights_of_its_own_draws_while_the_learner_works_and_nothing_else_changes(zero_std):
    """While a step is learnt from, its sampler waits for the learner to have begun: without a thread it would wait in
    vain. What comes of it is what comes of doing one after the other.
    """
    rewards = resolve_all([RewardTable(use=lambda completion: float(completion) % 3 > 2, name="some")])

    def steps(apart):
        learning, waited, at = threading.Event(), [], [0]

        def wait_for_the_learner(number):
            if apart and at[0] > 1 and number == 0:
                waited.append(learning.wait(30))

        taken = []
        with RewardPool(rewards, workers=1) as pool:
            how = {"max_staleness": 1, "zero_std": zero_std, "apart": apart}
            stream = stream_of(pool, rewards, playing(between=wait_for_the_learner), **how)
            for at[0] in (1, 2, 3, 4):
                learning.clear()
                if zero_std == "resample":
                    learning.set()  # groups that are sampled anew are waited for
                groups = stream.next(at[0])
                learning.set()
                stream.settle()
                taken.append([(group.ticket, group.rewards) for group in (*groups.kept, *groups.left_out)])
                stream.finish(groups)
            left = [group.ticket for group in stream.in_flight()]
            stream.close()
        assert all(waited)
        assert not apart or len(waited) >= 3
        return taken, left, stream.ledger.state()

    assert steps(apart=True) == steps(apart=False)


def test_what_fails_while_the_learner_works_is_said_when_it_has(tmp_path):
    at = [0]

    def failing(number):
        if at[0] == 2:
            raise UserError("the sampler is gone")

    rewards = resolve_all([RewardTable(use=lambda completion: 1.0, name="one")])
    with RewardPool(rewards, workers=1) as pool:
        stream = stream_of(pool, rewards, playing(between=failing), max_staleness=1, apart=True)
        for at[0] in (1, 2):
            assert len(stream.next(at[0]).kept) == 6
        with pytest.raises(UserError, match="the sampler is gone"):
            stream.settle()
        stream.close()


# ---- the failure budget


@pytest.mark.parametrize(
    ("budget", "window", "stops_at"), [(0.0, 10, 1), (0.1, 20, 3), (0.25, 8, None), (1.0, 8, None)]
)
def test_the_run_stops_when_more_groups_are_lost_than_the_budget_allows(budget, window, stops_at):
    def failing(completion, index):
        if index % 4 == 0:
            raise InfrastructureError("the sandbox is down")
        return 1.0

    rewards = resolve_all([RewardTable(use=failing)])
    with RewardPool(rewards, workers=1, retries=0) as pool:
        stream = stream_of(pool, rewards, playing(), failure_budget=budget, failure_window=window)
        lost, error = 0, ""
        try:
            for number in range(1, 9):
                step = stream.next(number)
                stream.finish(step)
                lost += len(step.left_out)
        except UserError as stop:
            error = str(stop)
    if stops_at is None:
        assert error == ""
        assert lost >= 12
    else:
        assert f"{stops_at} of the last" in error
        assert f"run.failure_budget = {budget:g} allows {int(budget * window)} in {window}" in error
        assert "the sandbox is down" in error


def test_old_losses_are_forgotten():
    def once_in_a_while(completion, index):
        if index % 10 == 0:
            raise InfrastructureError("down")
        return 1.0

    rewards = resolve_all([RewardTable(use=once_in_a_while)])
    with RewardPool(rewards, workers=1, retries=0) as pool:
        stream = stream_of(pool, rewards, playing(), failure_budget=0.2, failure_window=10)
        for number in range(1, 11):
            stream.finish(stream.next(number))


def weights(done):
    return load_file(done.final / "model.safetensors")


@pytest.mark.parametrize("staleness", [0, 2])
def test_a_run_that_the_budget_stops_is_saved_and_goes_on_to_the_same_weights(run, tmp_path, staleness):
    down = tmp_path / "down"
    log = tmp_path / "runs/broken/log"

    def asks(completion):
        if down.exists() and (log / "step-000003.parquet").exists():
            raise InfrastructureError("http://judge does not answer")
        return len(completion) / 10

    settings = {
        "reward": [asks],
        "evaluate": {"problems": 0},
        "rollout": {"max_staleness": staleness},
        "run": {"steps": 6, "save_every": 100, "retries": 0, "failure_budget": 0.2, "failure_window": 10},
    }
    whole = run(name="whole", **settings)
    down.touch()
    text = io.StringIO()
    with pytest.raises(UserError, match=r"3 of the last \d+ groups could not be scored.*judge does not answer"):
        run(name="broken", console=Console(file=text, width=200), **settings)
    saved = re.search(r"saved up to step (\d)", text.getvalue())
    assert saved[1] in ("3" if staleness == 0 else "345")  # what was scored before the server went down is trained on
    down.unlink()
    done = run(name="broken", resume=True, **settings)
    assert [line["step"] for line in done.metrics] == [0, 1, 2, 3, 4, 5, 6]
    a, b = weights(whole), weights(done)
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_lost_group_is_said_once_and_counted(run):
    def asks(completion, prompt):
        number = int(prompt.split()[2])
        if number % 10 == 0:
            raise InfrastructureError("http://judge does not answer")
        if number == 7:
            import time

            time.sleep(60)
        return len(completion) / 10

    text = io.StringIO()
    done = run(
        reward=[{"use": asks, "timeout_s": 0.5}],
        task={"held_out": None},
        rollout={"prompts_per_step": 8, "group_size": 2},
        run={"steps": 3, "retries": 1, "failure_budget": 1.0},
        evaluate={"problems": 0},
        console=Console(file=text, width=300),
    )
    assert text.getvalue().count("lost a group") == 1
    lines = done.metrics[1:]
    groups = [g for step in (1, 2, 3) for g in read_groups(done.directory / f"log/step-{step:06d}.parquet")]
    lost = [g for g in groups if g.disposition == "error"]
    assert sum(line["groups/failed"] for line in lines) == len(lost)
    assert sum(line["reward/asks/failures"] for line in lines) == len(lost) > 1
    assert sum(line["reward/asks/timeouts"] for line in lines) == sum("took more than" in g.error for g in lost) == 1
    assert sum(line["reward/asks/retries"] for line in lines) == len(lost) - 1  # the hang was not tried again
    assert sum(line["reward/asks/scored"] for line in lines) == 2 * (len(groups) - len(lost))


# ---- the metrics


def test_counts_and_times_of_each_reward():
    nan = float("nan")
    rewards = resolve_all(
        [RewardTable(use="exact_number", name="math", gate="form"), RewardTable(use="think_format", name="form")]
    )

    def scored(math_, form, seconds, labels, **retries):
        scores = {"math": math_, "form": form}
        return ScoredGroup(scores, {"math": seconds, "form": 0.0}, (), {"math": labels} if labels else {}, retries)

    outcomes = [
        scored((1.0, 0.0, 0.0), (1.0, 1.0, 0.0), 0.25, ("right", "wrong", "unparsed")),
        scored((nan, nan, nan), (0.0, 0.0, 0.0), 0.75, None, math=2),
        scored((1.0, 0.0, 0.0), (1.0, 1.0, 1.0), 0.5, ("right", "unparsed", None)),
        GroupLost("took more than 1 s", "math", True, {"math": 0}),
        GroupLost("died", "form", False, {"form": 2}),
        InfrastructureError("of another kind"),
    ]
    metrics = scoring_metrics(Combination.of(rewards), outcomes)
    own = {key.removeprefix("reward/math/"): value for key, value in metrics.items() if key.startswith("reward/math")}
    assert own == {
        "scored": 6, "not_applicable": 3, "retries": 2, "failures": 1, "timeouts": 1, "gated": 1,
        "right": 2, "wrong": 1, "unparsed": 2,
    }  # fmt: skip
    assert metrics["reward/form/failures"] == 1
    assert metrics["reward/form/timeouts"] == 0
    assert metrics["reward/form/retries"] == 2
    assert "reward/form/gated" not in metrics
    assert metrics["time/reward/math/mean_s"] == 0.5
    assert metrics["time/reward/math/p95_s"] == 0.75


def test_labels_of_a_users_own_reward_are_counted(run):
    def says_why(completion, seed):
        from cohort.rewards import Scored

        return Scored(None, "left_out") if seed % 3 == 0 else Scored(float(seed % 2), "odd" if seed % 2 else "even")

    done = run(reward=[says_why], evaluate={"problems": 0})
    for line in done.metrics[1:]:
        labels = [line.get(f"reward/says_why/{label}", 0) for label in ("left_out", "odd", "even")]
        assert sum(labels) == 12
        assert line["reward/says_why/not_applicable"] == labels[0]
        assert line["reward/says_why/mean"] == pytest.approx(labels[1] / (labels[1] + labels[2]))


def test_a_label_that_is_another_metric_is_refused(run):
    def says_why(completion):
        from cohort.rewards import Scored

        return Scored(1.0, "mean")

    with pytest.raises(UserError, match="the label 'mean' is the name of another metric"):
        run(reward=[says_why], evaluate={"problems": 0})


def test_held_out_problems_that_cannot_be_scored_are_said_and_counted(run):
    def asks(completion, prompt):
        if "1" in prompt:
            raise InfrastructureError("http://judge does not answer")
        return 1.0

    text = io.StringIO()
    done = run(
        reward=[asks],
        rollout={"prompts_per_step": 1},
        run={"steps": 1, "retries": 0, "failure_budget": 1.0},
        evaluate={"problems": 6, "samples": 1},
        console=Console(file=text, width=300),
    )
    problems = read_groups(done.directory / "log/eval-000000-greedy.parquet")
    failed = sum(group.error is not None for group in problems)
    assert 0 < failed < len(problems)
    assert done.metrics[0]["eval/failed"] == 2 * failed  # greedy and sampled
    assert done.metrics[0]["eval/greedy"] == 1.0
    assert (
        f"{failed} of {len(problems)} held-out problems could not be scored and are left out of the greedy"
        in text.getvalue()
    )


def test_the_number_of_workers_changes_nothing(run):
    def draws(completion, prompt):
        import random

        return random.random() + len(completion) / 10

    one = run(name="one", reward=[draws], evaluate={"problems": 0})
    more = run(name="more", reward=[draws], evaluate={"problems": 0}, run={"workers": 3})
    a, b = weights(one), weights(more)
    assert all(torch.equal(a[k], b[k]) for k in a)
