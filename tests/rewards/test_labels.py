"""A reward that says why: labels go with the scores, through the workers, into the scored group."""

import json

import pytest

from cohort.rewards import (
    RewardFailure,
    RewardPool,
    RewardTable,
    Scored,
    ScoringItem,
    resolve,
    resolve_all,
    score_group,
    trl,
)
from cohort.types import InfrastructureError

ITEM = ScoringItem("p", ("4", "five", ""), answer="4")


def labelled(completion, answer):
    if not completion:
        return Scored(None, "blank")
    if not completion.isdigit():
        return Scored(0.0, "unparsed")
    return Scored(float(completion == answer), "right")


def in_part(completion):
    return Scored(1, "short") if len(completion) == 1 else len(completion)


def test_labels_go_with_the_scores():
    rewards = resolve_all([RewardTable(use=labelled), RewardTable(use=in_part), RewardTable(use="exact_number")])
    here = score_group(rewards, ITEM)
    assert here.labels == {"labelled": ("right", "unparsed", "blank"), "in_part": ("short", None, None)} | {
        "exact_number": ("no_answer", "no_answer", "no_answer")
    }
    assert repr(here.scores["labelled"]) == "(1.0, 0.0, nan)"
    assert here.scores["in_part"] == (1, 4, 0)
    with RewardPool(rewards, workers=1) as pool:
        there = pool.submit(ITEM).result(timeout=30)
    assert there.labels == here.labels
    assert repr(there.scores) == repr(here.scores)


@pytest.mark.parametrize(
    ("use", "completion", "label"),
    [
        ("exact_number", "<answer>4</answer>", "right"),
        ("exact_number", "<answer>5</answer>", "wrong"),
        ("exact_number", "<answer>4 or 5</answer>", "unparsed"),
        ("exact_text", "4!", "right"),
        ("exact_text", "five", "wrong"),
        ("exact_text", " . ", "blank"),
        ("one_answer", "<answer>4</answer>", "kept"),
        ("one_answer", "4", "no_answer"),
        ("one_answer", "#### 4 #### 5", "several"),
        ("one_answer", "<answer> </answer>", "blank"),
        ("think_format", "<think>a</think><answer>4</answer>", "kept"),
        ("think_format", "<answer>4</answer>", "no_tags"),
        ("think_format", "<think>a</think><think></think><answer>4</answer>", "tags_twice"),
        ("think_format", "<answer>4</answer><think>a</think>", "order"),
    ],
)
def test_verifiers_that_give_a_number_say_why_too(use, completion, label):
    scored = resolve(RewardTable(use=use)).judge(ScoringItem("p", (completion,), answer="4"))[0]
    assert (scored.label, scored.value) == (label, float(label in ("right", "kept")))


def test_trl_functions_may_say_why_too():
    reward = resolve(RewardTable(use=trl(lambda completions: [Scored(1.0, "a"), 0.5, None])))
    assert [(scored.value, scored.label) for scored in reward.judge(ITEM)] == [(1, "a"), (0.5, None), (None, None)]
    assert str(reward.score(ITEM)) == "(1.0, 0.5, nan)"


@pytest.mark.parametrize("label", ["", "Right", "two words", "a/b", "1st", "x" * 41, 3, "\u00e9"])
def test_a_label_is_a_short_name(label):
    with pytest.raises(ValueError, match="label"):
        Scored(1.0, label)
    with pytest.raises(RewardFailure, match="raised ValueError: a label is"):
        resolve(RewardTable(use=lambda completion: Scored(1.0, label))).judge(ITEM)


@pytest.mark.parametrize("value", ["1", float("nan"), float("inf"), [1]])
def test_a_value_that_is_no_score_is_a_failure_with_a_label_too(value):
    with pytest.raises(RewardFailure, match="returned"):
        resolve(RewardTable(use=lambda completion: Scored(value, "right"))).judge(ITEM)


def test_a_reward_whose_world_fails_is_asked_again_and_never_a_score(tmp_path):
    tries = tmp_path / "tries"

    def asks(completion):
        count = int(tries.read_text()) if tries.exists() else 0
        tries.write_text(str(count + 1))
        if count < 1:
            raise InfrastructureError("the server\n  is away")
        return 1

    rewards = resolve_all([RewardTable(use=asks)])
    with pytest.raises(InfrastructureError, match="the server"):
        score_group(rewards, ITEM)
    tries.unlink()
    with RewardPool(rewards, workers=1, retries=1) as pool:
        assert pool.submit(ITEM).result(timeout=30).rewards == (1, 1, 1)
    tries.unlink()
    with (
        RewardPool(rewards, workers=1, retries=0) as pool,
        pytest.raises(InfrastructureError, match=r"reward 'asks'.*the server is away"),
    ):
        pool.submit(ITEM).result(timeout=30)


def test_a_worker_survives_a_world_that_fails():
    def asks(completion):
        import os

        if completion == "away":
            raise InfrastructureError("away")
        return os.getpid()

    with RewardPool(resolve_all([RewardTable(use=asks)]), workers=1, retries=0) as pool:
        before = pool.submit(ScoringItem("p", ("a",))).result(timeout=30).rewards
        with pytest.raises(InfrastructureError):
            pool.submit(ScoringItem("p", ("away",))).result(timeout=30)
        assert pool.submit(ScoringItem("p", ("a",))).result(timeout=30).rewards == before


def test_scored_is_a_plain_value():
    assert Scored(1.0) == Scored(1.0, None)
    assert json.dumps([Scored(1.0, "a").value, Scored(1.0, "a").label]) == '[1.0, "a"]'
