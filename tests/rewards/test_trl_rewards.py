"""Rewards written for TRL run unchanged: completion_ids, trainer_state, log_metric and log_extra are given, and what is
logged reaches metrics and records. The functions have the signatures of TRL 1.16's own rewards and of those that its
documentation shows. Tried: by name and in **kwargs, async, in this process, in workers, with steps, in the gate, in a
run; metrics that are no numbers, columns of another length, names that are taken.
"""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

import cohort
from cohort.monitor.scoring import scoring_metrics
from cohort.record.rollouts import read_groups
from cohort.rewards import Combination, RewardPool, ScoringItem, resolve, score_group
from cohort.rewards.failure import RewardFailure
from cohort.settings import Reward as Table
from cohort.types import Prompt, Rollout, UserError
from cohort.views.console import Console


def soft_overlong(completion_ids: list[list[int]], **kwargs) -> list[float]:
    return [-float(len(ids) > 2) for ids in completion_ids]


def in_kwargs(completions, **kwargs):
    return [float(len(ids)) for ids in kwargs["completion_ids"]]


def by_step(prompts, completions, trainer_state, **kwargs):
    return [trainer_state.global_step / trainer_state.max_steps for _ in completions]


def accuracy(completions, answer, log_extra=None, log_metric=None, **kwargs):
    right = [text == gold for text, gold in zip(completions, answer, strict=True)]
    if log_extra:
        log_extra("gold", answer)
        log_extra("length", np.array([len(text) for text in completions]))
    if log_metric:
        log_metric("accuracy", sum(right) / len(right))
        log_metric("part/ones", 1)
    return [float(one) for one in right]


async def later(completions, log_metric, **kwargs):
    log_metric("seen", len(completions))
    return [0.0 for _ in completions]


def wants_state(completion, trainer_state):
    return trainer_state.global_step


def nothing_asked(completions):
    return [1.0 for _ in completions]


def wrong(kind):
    def score(completions, log_metric, log_extra, **kwargs):
        {
            "name": lambda: log_metric("mean", 1.0),
            "text": lambda: log_metric("a", "much"),
            "length": lambda: log_extra("a", [1]),
        }[kind]()
        return [1.0 for _ in completions]

    return score


def trl(function, **more):
    return resolve(Table(use=function, name="r", style="trl", **more))


def item(*texts, ids=True):
    rollouts = [
        Rollout(tuple(range(len(text))), (True,) * len(text), (0.0,) * len(text), 3, "stop", text) for text in texts
    ]
    found = ScoringItem.of(Prompt.make("1 + 1?", answer="2"), rollouts)
    return found if ids else ScoringItem("1 + 1?", texts, "2")


FUNCTIONS = {soft_overlong: (0.0, -1.0), in_kwargs: (1.0, 3.0), accuracy: (1.0, 0.0), later: (0.0, 0.0)}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_trl_offers_is_given(function):
    found = score_group([trl(function)], item("2", "two"))
    assert found.scores["r"] == FUNCTIONS[function]
    assert score_group([trl(nothing_asked)], item("2", "two")).scores["r"] == (1.0, 1.0)


def test_the_state_says_how_far_training_is():
    from dataclasses import replace

    reward = replace(trl(by_step), last_step=12)
    assert reward.score(item("a", "b")) == (0.25, 0.25)  # the weights of step 3 have sampled it


def test_workers_send_back_what_was_logged_and_get_no_tokens_that_nobody_reads():
    rewards = [trl(accuracy), resolve(Table(use=soft_overlong, name="long", style="trl"))]
    with RewardPool(rewards) as pool:
        here, there = score_group(rewards, item("2", "two")), pool.submit(item("2", "two")).result()
    for found in (here, there):
        assert found.metrics == {"r": {"accuracy": 0.5, "part/ones": 1.0}}
        assert found.extra == {"r": ({"gold": "2", "length": 1}, {"gold": "2", "length": 3})}
    assert here.scores == there.scores
    assert [one.reads_tokens for one in rewards] == [True, True]
    assert not trl(nothing_asked).reads_tokens
    assert not resolve(Table(use="exact_number")).reads_tokens


def test_metrics_are_means_over_the_groups_of_a_step():
    reward = trl(accuracy)
    groups = [score_group([reward], item(*texts)) for texts in (("2", "3"), ("2", "2"))]
    found = scoring_metrics(Combination.of([reward]), groups)
    assert (found["reward/r/accuracy"], found["reward/r/part/ones"]) == (0.75, 1.0)
    assert found["reward/r/scored"] == 4


@pytest.mark.parametrize(
    ("kind", "says"),
    [("name", "'mean' is the name of another metric"), ("text", "could not convert"), ("length", "1 values for 2")],
)
def test_what_cannot_be_logged_is_said(kind, says):
    with pytest.raises(RewardFailure, match=says):
        trl(wrong(kind)).score(item("a", "b"))


def test_who_asks_without_the_style_or_for_tokens_that_nobody_knows_is_told():
    with pytest.raises(UserError, match='needs style = "trl"'):
        resolve(Table(use=wants_state), columns=[])
    with pytest.raises(UserError, match="Nobody knows the tokens"):
        trl(soft_overlong).score(item("a", ids=False))
    assert trl(accuracy).score(item("2", ids=False)) == (1.0,)


def test_a_run_with_such_rewards_keeps_what_they_log(tmp_path, monkeypatch, checkpoint_dir):
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"{i} + 1?", "answer": str(i + 1)} for i in range(4)]
    recipe = cohort.Recipe(
        name="r",
        policy={"model": str(checkpoint_dir)},
        task={"source": rows},
        rollout={"prompts_per_step": 2, "group_size": 2, "max_tokens": 4},
        reward=[{"use": use, "style": "trl"} for use in (accuracy, soft_overlong, by_step)],
        run={"steps": 2, "threads": 1, "gate": "warn"},
    )
    run = cohort.train(recipe, console=Console(quiet=True))
    assert [line["reward/accuracy/part/ones"] for line in run.metrics if line["step"]] == [1.0, 1.0]
    assert [line["reward/by_step/mean"] for line in run.metrics if line["step"]] == [0.0, 0.5]
    file = run.directory / "log" / "step-000002.parquet"
    kept = [json.loads(text) for text in pq.read_table(file)["extra"].to_pylist()]
    assert all(set(of["accuracy"]) == {"gold", "length"} for of in kept)
    assert read_groups(file)[0].extra["accuracy"][0]["gold"] == read_groups(file)[0].prompt.answer
