"""Length rewards against their formulas."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.preflight.gate.gold import check_gold
from cohort.rewards import RewardTable, ScoringItem, resolve, resolve_all, score_group
from cohort.rewards.guarded import end_guards
from cohort.rewards.verifiers.length import (
    check_target,
    cosine,
    cosine_length,
    length_budget,
    stops_properly,
    target_length,
)
from cohort.types import Prompt, UserError


@pytest.fixture(autouse=True, scope="module")
def no_process_is_left():
    yield
    end_guards()


def test_the_target_is_l1_exact():
    assert target_length(1000, {}, target=1000) == 0
    assert target_length(900, {}, target=1000) == target_length(1100, {}, target=1000) == pytest.approx(-0.03)
    assert target_length(900, {}, target=1000, alpha=0.001, tolerance=60) == pytest.approx(-0.04)
    assert target_length(100_000, {}, target=1000) == -1
    assert target_length(100_000, {}, target=1000, lowest=-50.0) == pytest.approx(-29.7)


def test_the_budget_is_l1_max():
    assert length_budget(1000, {}, target=1000) == 0.5
    assert length_budget(0, {}, target=1000) == pytest.approx(0.8)
    assert length_budget(2000, {}, target=1000) == pytest.approx(0.2)
    assert length_budget(10_000, {}, target=1000) == 0
    assert length_budget(0, {}, target=10_000) == 1


def test_each_row_may_have_its_own_target():
    assert target_length(10, {"n": 20}, column="n", alpha=0.1, lowest=-9.0) == -1
    for row, args, said in (
        ({}, {"column": "n"}, "no target in its column"),
        ({"n": "20"}, {"column": "n"}, "number of tokens"),
        ({"n": 0}, {"column": "n"}, "number of tokens"),
        ({}, {"target": True}, "number of tokens"),
        ({}, {}, "neither is given"),
    ):
        with pytest.raises(ValueError, match=said):
            check_target(row, **args)


def test_the_cosine_by_hand():
    assert cosine(0, 1000, 1.0, 0.5) == 1
    assert cosine(1000, 1000, 1.0, 0.5) == 0.5
    assert cosine(500, 1000, 1.0, 0.5) == pytest.approx(0.75)
    assert cosine(250, 1000, 2.0, 1.0) == pytest.approx(1 + 0.5 * (1 + math.sqrt(0.5)))
    assert cosine(250, 1000, -10.0, 0.0) == pytest.approx(-5 * (1 + math.sqrt(0.5)))


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_shorter_is_better_when_right_and_worse_when_wrong(one, other):
    short, long = sorted((one, other))
    assert cosine(short, 1000, 1.0, 0.5) >= cosine(long, 1000, 1.0, 0.5)
    assert cosine(short, 1000, -1.0, -0.5) <= cosine(long, 1000, -1.0, -0.5)


def of(text, tokens, finish="stop", answer="72", **args):
    scored = cosine_length(text, tokens, finish, answer, "p", {}, 1000, **args)
    return scored.value, scored.label


def test_the_cosine_reward_asks_its_verifier():
    assert of("\\boxed{72}", 0) == (1, "right")
    assert of("\\boxed{72}", 1000) == (0.5, "right")
    assert of("\\boxed{73}", 0) == (-1, "wrong")
    assert of("\\boxed{73}", 1000) == (-0.5, "wrong")
    assert of("nothing", 500) == (pytest.approx(-0.75), "wrong")
    assert of("\\boxed{72}", 1000, "length") == (-1, "cut_off")
    assert of("\\boxed{72}", 1001) == (-1, "cut_off")
    assert of("B", 0, answer="B", verifier="choice") == (1, "right")
    assert of("72", 0, verifier="exact_number", verifier_args={"last_number": True}) == (1, "right")
    assert of("\\boxed{72}", 0, right_short=2.0) == (2, "right")


def applies_to_none(completion):
    return None


def test_where_the_verifier_does_not_apply_it_does_not_either():
    assert of("x", 1, verifier=f"{__name__}:applies_to_none") == (None, None)


def test_the_verifiers_gold_answers_are_checked():
    reward = resolve(RewardTable(use="cosine_length", args={"max_tokens": 10}))
    assert check_gold([reward], [("row 1", Prompt.make("q", answer="72"))]) == 1
    with pytest.raises(UserError, match=r"^row 2: reward 'cosine_length' cannot score this row, whose answer is '\?'"):
        check_gold([reward], [("row 2", Prompt.make("q", answer="?"))])
    misspelt = resolve(RewardTable(use="cosine_length", args={"max_tokens": 10, "verifier": "maths"}))
    with pytest.raises(UserError, match="did you mean 'math'"):
        check_gold([misspelt], [("row 1", Prompt.make("q", answer="72"))])


def test_they_are_built_in_rewards():
    item = ScoringItem("p", ("\\boxed{1}", "\\boxed{2}"), answer=1, tokens=(500, 100), finishes=("stop", "length"))
    assert resolve(RewardTable(use="target_length", args={"target": 300, "alpha": 0.001})).score(item) == (-0.2, -0.2)
    assert resolve(RewardTable(use="length_budget", args={"target": 500})).score(item) == (0.5, 0.62)
    assert resolve(RewardTable(use="cosine_length", args={"max_tokens": 1000})).score(item) == (pytest.approx(0.75), -1)


def test_the_length_among_a_group_times_its_pass_rate_is_that_of_its_source():
    """The advantages that prime-rl's penalty has on this group, to nine digits."""
    reward = resolve(RewardTable(use="relative_length", args={"verifier": "exact_number"}, weight=0.25))
    texts = ("#### 7", "#### 7", "#### 8", "#### 7")
    item = ScoringItem("p", texts, "7", finishes=("stop",) * 4, tokens=(100, 50, 200, 80))
    r = [float(text.endswith("7")) + 0.25 * score for text, score in zip(texts, reward.score(item), strict=True)]
    assert [one - sum(r) / 4 for one in r] == pytest.approx([0.25703125, 0.30390625, -0.83671875, 0.27578125])
    wrong = replace(item, completions=("#### 8",) * 4)
    assert reward.score(wrong) == (0, 0, 0, 0)  # nobody is right yet: no length is too much


def test_what_is_cut_off_earns_nothing_behind_a_gate():
    tables = [RewardTable(use="exact_number", gate="stops_properly"), RewardTable(use="stops_properly", weight=0.0)]
    item = ScoringItem("p", ("#### 7",) * 3, "7", finishes=("stop", "length", "tool"), tokens=(1, 2, 3))
    assert score_group(resolve_all(tables), item).rewards == (1, 0, 0)
    assert stops_properly("length", cut_off=-1.0) == -1
