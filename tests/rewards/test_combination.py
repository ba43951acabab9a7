"""Several rewards as one: weights, gates, prompts that a reward is not for, and what is missing."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cohort.algorithms import objectives
from cohort.algorithms.advantages import weighted_sum
from cohort.rewards import Combination, Gate, RewardPool, RewardTable, ScoringItem, combine, resolve, resolve_all
from cohort.rewards.calling.reward import applies
from cohort.types import UserError

NAN = math.nan


def rows(*scores):
    """repr, because NaN equals nothing."""
    return repr(tuple(scores))


def combination(weights, **gates):
    return Combination(weights, gates)


def test_a_shut_gate_makes_a_reward_0():
    mixed = combination({"math": 1.0, "format": 0.1}, math=Gate("format"))
    scores = {"math": (1.0, 1.0, 0.0, NAN), "format": (1.0, 0.0, 0.0, 0.0)}
    assert rows(*mixed.paid(scores)["math"]) == rows(1.0, 0.0, 0.0, NAN)  # what does not apply stays so
    assert mixed.paid(scores)["format"] == scores["format"]
    assert mixed.total(scores) == (1.1, 0.0, 0.0, 0.0)
    assert mixed.shut(scores) == {"math": (False, True, True, True)}


def test_a_shut_gate_can_leave_a_reward_out():
    mixed = combination({"math": 1.0, "format": 0.1}, math=Gate("format", otherwise="none"))
    scores = {"math": (1.0, 1.0), "format": (1.0, 0.0)}
    assert rows(*mixed.paid(scores)["math"]) == rows(1.0, NAN)
    only_measured = combination({"math": 1.0, "format": 0.0}, math=Gate("format", otherwise="none"))
    assert rows(*only_measured.total(scores)) == rows(1.0, NAN)


def test_the_threshold_is_inclusive_and_a_gate_that_does_not_apply_is_open():
    mixed = combination({"a": 1.0, "b": 1.0}, a=Gate("b", at=-0.25))
    assert mixed.paid({"a": (1.0,) * 4, "b": (-0.25, -0.3, NAN, 2.0)})["a"] == (1.0, 0.0, 1.0, 1.0)


def test_a_penalty_is_gated_too():
    mixed = combination({"long": -1.0, "format": 1.0}, long=Gate("format"))
    assert mixed.total({"long": (0.5, 0.5), "format": (1.0, 0.0)}) == (0.5, 0.0)


def test_signal_is_decided_by_the_first_paying_reward_that_applies_as_it_is_paid():
    mixed = combination({"watched": 0.0, "math": 1.0, "code": 1.0, "format": 0.1}, math=Gate("format"))
    watched, math_, code, nothing = (5.0, 6.0), (1.0, 1.0), (0.25, 0.75), (NAN, NAN)
    form = (1.0, 0.0)
    assert mixed.accuracy({"watched": watched, "math": math_, "code": nothing, "format": form}) == (1.0, 0.0)
    assert mixed.accuracy({"watched": watched, "math": nothing, "code": code, "format": form}) == code
    assert mixed.accuracy({"watched": watched, "math": nothing, "code": nothing, "format": form}) == form


component = st.one_of(st.just(NAN), st.floats(-10, 10))
GROUP = st.integers(1, 4).flatmap(
    lambda k: st.lists(st.lists(component, min_size=k, max_size=k), min_size=2, max_size=5)
)


@given(GROUP, st.lists(st.sampled_from([0.0, 0.5, -1.0, 2.0]), min_size=4, max_size=4))
def test_what_is_missing_means_the_same_in_the_loop_and_in_the_objective(group, weights):
    count = len(group[0])
    names = [f"r{index}" for index in range(count)]
    scores = {name: tuple(completion[index] for completion in group) for index, name in enumerate(names)}
    totals = combine(scores, dict(zip(names, weights)))
    tensor = torch.tensor([group], dtype=torch.float64)  # [1, G, K]
    expected = weighted_sum(tensor, weights[:count])
    torch.testing.assert_close(torch.tensor([totals], dtype=torch.float64), expected, equal_nan=True)
    objective = objectives.preset("dr_grpo")
    ours = objective.advantages(torch.tensor([totals], dtype=torch.float64))
    torch.testing.assert_close(ours, objective.advantages(tensor, weights=weights[:count]))
    assert (ours[0][torch.tensor([math.isnan(total) for total in totals])] == 0).all()


def test_missing_components_change_neither_the_others_mean_nor_their_scale():
    """A group where half of the completions have a second reward: the first is compared among all of them."""
    rewards = torch.tensor([[[1.0, NAN], [0.0, NAN], [1.0, 2.0], [0.0, 2.0]]])
    advantages = objectives.preset("trl", rewards="normalise_then_sum").advantages(rewards)
    assert advantages[0, 0] == pytest.approx(advantages[0, 2])  # 2.0 is constant among those that have it


# ---- prompts that a reward is not for


@pytest.mark.parametrize(
    ("when", "row", "result"),
    [
        ({}, {}, True),
        ({"domain": "math"}, {"domain": "math", "level": 3}, True),
        ({"domain": "math"}, {"domain": "code"}, False),
        ({"domain": "math"}, {}, False),
        ({"domain": ["math", "physics"]}, {"domain": "physics"}, True),
        ({"domain": "math", "level": 3}, {"domain": "math", "level": 2}, False),
        ({"level": 3}, {"level": 3.0}, True),
        ({"level": 3}, {"level": "3"}, False),
        ({"hard": True}, {"hard": True}, True),
        ({"hard": True}, {"hard": 1}, False),
        ({"hard": False}, {"hard": None}, False),
    ],
)
def test_when(when, row, result):
    assert applies(when, row) == result


def test_a_reward_is_not_called_for_a_prompt_that_it_is_not_for():
    def breaks(completion, tests):
        return len(tests) / len(completion)

    reward = resolve(RewardTable(use=breaks, when={"domain": "code"}))
    assert rows(*reward.score(ScoringItem("p", ("", "x"), row={"domain": "math"}))) == rows(NAN, NAN)
    assert reward.score(ScoringItem("p", ("x",), row={"domain": "code", "tests": "ab"})) == (2.0,)


def test_gates_and_routes_work_in_workers():
    rewards = resolve_all(
        [
            RewardTable(use="exact_number", when={"domain": "math"}, gate="think_format"),
            RewardTable(use=lambda completion: 0.25, name="chat", when={"domain": "chat"}),
            RewardTable(use="think_format", weight=0.5),
        ]
    )
    good, loose = "<think> x </think><answer> 4 </answer>", "\\boxed{4}"
    with RewardPool(rewards, workers=2) as pool:
        math_, chat = (
            pool.submit(ScoringItem("2 + 2", (good, loose), answer="4", row={"domain": domain})).result(timeout=30)
            for domain in ("math", "chat")
        )
    assert math_.scores["exact_number"] == (1.0, 1.0)  # the record keeps what the verifier said
    assert math_.rewards == (1.5, 0.0)
    assert chat.rewards == (0.75, 0.25)


# ---- what is refused


@pytest.mark.parametrize(
    ("specs", "says"),
    [
        ([RewardTable(use="random", gate="format")], "no other reward of the recipe; the others are none"),
        ([RewardTable(use="random", gate="random")], "no other reward"),
        (
            [RewardTable(use="random", gate="think_formt"), RewardTable(use="think_format")],
            r"did you mean 'think_format'\?",
        ),
        (
            [
                RewardTable(use="random", gate="exact_number"),
                RewardTable(use="exact_number", gate="think_format"),
                RewardTable(use="think_format"),
            ],
            "gates do not chain",
        ),
    ],
)
def test_gates_that_are_refused(specs, says):
    with pytest.raises(UserError, match=says):
        resolve_all(specs)


def test_a_column_that_is_not_there_is_refused_before_anything_is_scored():
    with pytest.raises(UserError, match=r"the column 'domian' in `when` \(did you mean 'domain'\?\)"):
        resolve(RewardTable(use="exact_number", when={"domian": "math"}), columns=["domain", "level"])
    with pytest.raises(UserError, match="none besides the question and the answer"):
        resolve(RewardTable(use="exact_number", when={"domain": "math"}), columns=[])
