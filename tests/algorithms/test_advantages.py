"""Advantages against the worked numbers, and against the rules about missing, constant and lonely rewards."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
import torch

from cohort.algorithms import advantages as adv
from cohort.algorithms import objectives

FOUR_GROUPS = torch.tensor([[1, 0, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1], [0.2, 0.7, -0.3, 1.4]], dtype=torch.float64)
NAN = math.nan


def close(actual: torch.Tensor, expected: object, atol: float = 1e-9) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("fields", "g0", "g1", "g3", "atol"),
    [
        ({"ddof": 0, "eps": 0}, 1, (1.732050808, -0.577350269),
         (-0.477334371, 0.318222914, -1.272891655, 1.432003112), 1e-9),
        ({"ddof": 1, "eps": 0}, 0.866025404, (1.5, -0.5), (-0.413383691, 0.275589127, -1.102356509, 1.240151073), 1e-9),
        # TRL's column was produced with a Bessel factor in float32, so it is exact to 2e-8 only
        ({"ddof": 1, "eps": 1e-4}, 0.865875430, (1.499700060, -0.499900020),
         (-0.413326737, 0.275551158, -1.102204631, 1.239980210), 5e-8),
        ({"ddof": 1, "eps": 1e-6}, 0.866023904, (1.499997, -0.499999),
         (-0.413383121, 0.275588748, -1.102354990, 1.240149364), 1e-9),
        ({"scale": "none"}, 0.5, (0.75, -0.25), (-0.3, 0.2, -0.8, 0.9), 1e-12),
        ({"baseline": "leave_one_out", "scale": "none"}, 0.666666667, (1, -0.333333333),
         (-0.4, 0.266666667, -1.066666667, 1.2), 1e-9),
        ({"baseline": "leave_one_out", "scale": "leave_one_out_std", "eps": 1e-6}, 1.154698538, (1, -0.577349269),
         (-0.468164041, 0.305218688, -1.769601108, 2.399995200), 1e-9),
    ],
)  # fmt: skip
def test_group_advantages_of_the_worked_example(fields, g0, g1, g3, atol):
    result = objectives.Objective(**fields).advantages(FOUR_GROUPS)
    close(result, [[g0, -g0, -g0, g0], [g1[0], g1[1], g1[1], g1[1]], [0, 0, 0, 0], list(g3)], atol)
    assert result.dtype == torch.float64


def test_batch_scales_of_the_worked_example():
    centred = FOUR_GROUPS - FOUR_GROUPS.mean(1, keepdim=True)
    close(adv.normalise(FOUR_GROUPS, scale="batch_std", eps=0), centred / 0.548786540, 5e-9)
    close(adv.normalise(FOUR_GROUPS, scale="centred_batch_std", eps=0), centred / 0.471168760, 5e-9)
    flat = FOUR_GROUPS.flatten().tolist()
    expected = [(r - statistics.fmean(flat)) / statistics.pstdev(flat) for r in flat]
    close(adv.normalise(FOUR_GROUPS, baseline="batch_mean", scale="batch_std", ddof=0, eps=0).flatten(), expected)
    close(adv.normalise(FOUR_GROUPS, baseline="none", scale="none"), FOUR_GROUPS)


def test_max_rl_divides_by_the_mean():
    result = objectives.preset("max_rl").advantages(torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0]]))
    close(result, [[3, -1, -1, -1], [1, -1, -1, 1], [0, 0, 0, 0]])
    with pytest.raises(ValueError, match=r"group_mean.*-1.*never negative"):
        objectives.preset("max_rl").advantages(torch.tensor([[1.0, -1]]))


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-30, 12345.678])
@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "lite_ppo", "scale_rl", "trl", "reinforce_pp_baseline"])
def test_equal_float32_rewards_give_exactly_zero(name, value):
    rewards = torch.full((2, 8), value, dtype=torch.float32)
    rewards[1] = torch.arange(8)
    result = objectives.preset(name, **({"eps": 0.0} if name == "grpo" else {})).advantages(rewards)
    assert (result[0] == 0).all()
    assert (result[1] != 0).any()


@pytest.mark.parametrize("fields", [
    {"baseline": "none", "scale": "batch_std"}, {"baseline": "none", "scale": "centred_batch_std"},
    {"baseline": "batch_mean", "scale": "none"}, {"baseline": "none", "scale": "group_std"},
])  # fmt: skip
def test_a_batch_of_equal_rewards_gives_exactly_zero(fields):
    assert (objectives.Objective(**fields).advantages(torch.full((3, 7), 0.1)) == 0).all()


def test_missing_rewards_are_left_out_of_the_statistics():
    with_gap = torch.tensor([[1, NAN, 0, 0.5], [NAN, NAN, NAN, NAN], [NAN, NAN, 3, NAN]])
    alone = torch.tensor([[1, 0, 0.5]])
    for fields in ({}, {"scale": "none"}, {"baseline": "leave_one_out", "scale": "none"}, {"ddof": 0}):
        objective = objectives.Objective(**fields)
        result = objective.advantages(with_gap)
        close(result[0, [0, 2, 3]], objective.advantages(alone)[0])
        assert result[0, 1] == 0
        assert (result[1:] == 0).all()
    lone_others = objectives.Objective(baseline="leave_one_out", scale="leave_one_out_std").advantages(with_gap)
    close(lone_others[0, 0], (1 - 0.25) / (statistics.stdev([0, 0.5]) + 1e-6))
    batch = adv.normalise(with_gap, baseline="batch_mean", scale="batch_std", eps=0)
    flat = [1, 0, 0.5, 3]
    close(batch[2, 2], (3 - statistics.fmean(flat)) / statistics.stdev(flat))


@pytest.mark.parametrize("fields", [{}, {"baseline": "leave_one_out"}, {"baseline": "none"}, {"scale": "none"}])
def test_a_group_of_one_is_refused(fields):
    with pytest.raises(ValueError, match="group size 1"):
        objectives.Objective(**fields).advantages(torch.ones(3, 1))


def test_a_group_of_one_is_fine_with_a_batch_baseline():
    close(objectives.preset("reinforce").advantages(torch.tensor([[1.0], [0.0]])), [[0.5], [-0.5]])


def test_bad_rewards_are_refused():
    objective = objectives.preset("grpo")
    with pytest.raises(ValueError, match=r"rewards has shape \(4,\)"):
        objective.advantages(torch.ones(4))
    with pytest.raises(ValueError, match="infinite"):
        objective.advantages(torch.tensor([[1, math.inf]]))
    with pytest.raises(ValueError, match="gae"):
        objectives.preset("ppo").advantages(torch.ones(2, 2))
    with pytest.raises(ValueError, match="weights"):
        objective.advantages(torch.ones(2, 2), weights=[1.0])


def test_reinforce_pp_baseline_whitened_over_tokens():
    lengths = [3, 2, 4, 3, 1, 2, 3, 4, 2, 2, 2, 2, 4, 1, 3, 2]
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    centred = (FOUR_GROUPS - FOUR_GROUPS.mean(1, keepdim=True)).flatten()
    tokens = centred[:, None].expand(16, 4)
    a, b, c, d = 1.289285344, -0.943243390, 1.847417528, -0.385111207
    expected = [a, b, b, a, c, d, d, d, *[0.173020977] * 4, -0.496737643, 0.619526724, -1.613002011, 2.182296838]
    result = adv.whiten(tokens, mask)
    close(result[:, 0], expected, 1e-9)
    assert (result[~mask] == 0).all()
    population = adv.whiten(tokens, mask, ddof=0, eps=0)  # OpenRLHF's form
    close(population[[0, 1, 8], 0], [1.305710056, -0.955259738, 0.175225159])


# ---- several rewards

GDPO_REWARDS = torch.tensor([[[1, 1], [0, 1], [1, 0], [0, 0]], [[1, 0], [1, 1], [1, 1], [0, 1]]], dtype=torch.float64)


def test_gdpo_of_the_worked_example():
    close(adv.gdpo(GDPO_REWARDS, whiten=False).flatten(),
          [1.731750860, 0, 0, -1.731750860, -0.999800040, 0.999800040, 0.999800040, -0.999800040], 1e-7)  # fmt: skip
    final = [1.449031946, 0, 0, -1.449031946, -0.836576572, 0.836576572, 0.836576572, -0.836576572]
    close(adv.gdpo(GDPO_REWARDS).flatten(), final, 5e-8)
    as_objective = objectives.preset("grpo", rewards="normalise_then_sum", eps=1e-4).advantages(GDPO_REWARDS)
    close(as_objective.flatten(), final, 5e-8)
    summed = objectives.preset("grpo", eps=1e-4).advantages(GDPO_REWARDS)
    close(summed[0], [1.224594872, 0, 0, -1.224594872], 5e-8)
    close(summed[1, 0], -0.865875417, 5e-8)


def test_gdpo_tells_apart_what_a_sum_confuses():
    one = torch.tensor([[[0.0, 0], [1, 0]]])
    both = torch.tensor([[[0.0, 0], [1, 1]]])
    half = math.sqrt(0.5)
    close(adv.gdpo(one, eps=0, whiten=False), [[-half, half]])
    close(adv.gdpo(both, eps=0, whiten=False), [[-2 * half, 2 * half]])
    close(adv.gdpo(both, weights=[1.0, 0.5], eps=0, whiten=False), [[-1.5 * half, 1.5 * half]])


def test_gdpo_gives_a_constant_group_exactly_zero_however_the_batch_rounds():
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(5, 7, 3, generator=generator)
    rewards[0] = 0.1
    result = adv.gdpo(rewards)
    assert (result[0] == 0).all()
    assert (result[1:] != 0).all()


def test_gdpo_leaves_out_missing_rewards_and_constant_groups():
    rewards = torch.tensor([[[1, NAN], [0, 1], [NAN, NAN]], [[0.1, 0.1], [0.1, 0.1], [0.1, 0.1]]])
    result = adv.gdpo(rewards, ddof=0, eps=0)
    assert result[0, 2] == 0
    assert (result[1] == 0).all()
    five = [1.0, -1.0, 0.0, 0.0, 0.0]  # the second reward has one value in the first group: nothing to compare
    close(result[0, :2], [1 / statistics.pstdev(five), -1 / statistics.pstdev(five)])
    with pytest.raises(ValueError, match="weights"):
        adv.gdpo(rewards, weights=[1.0])
    with pytest.raises(ValueError, match=r"\[P, G, K\]"):
        adv.gdpo(torch.ones(2, 2))


def test_a_missing_component_is_left_out_of_the_sum_and_a_completion_without_any_has_none():
    rewards = torch.tensor([[[1, NAN], [2, 3]], [[NAN, NAN], [NAN, 0]]])
    result = adv.weighted_sum(rewards, [1.0, 10.0])
    close(result[0], [1, 32])
    assert torch.isnan(result[1, 0])
    assert result[1, 1] == 0
    advantages = objectives.preset("dr_grpo").advantages(rewards, weights=[1.0, 10.0])
    close(advantages, [[-15.5, 15.5], [0, 0]])


def test_a_component_of_weight_0_is_no_component():
    rewards = torch.tensor([[[1, 5], [NAN, 5], [0, 7]], [[1, 3], [1, 4], [1, 5]]])
    result = adv.weighted_sum(rewards, [1.0, 0.0])
    close(result[:, [0, 2]], [[1, 0], [1, 1]])
    assert torch.isnan(result[0, 1])
    for name in ("sum_then_normalise", "normalise_then_sum"):
        objective = objectives.preset("trl", rewards=name)
        both, alone = objective.advantages(rewards, weights=[1.0, 0.0]), objective.advantages(rewards[..., :1])
        close(both, alone)
        assert (both[1] == 0).all()  # what is only measured gives a constant group no signal


# ---- pass@k


@pytest.mark.parametrize(
    ("N", "c", "k", "right", "wrong"),
    [(8, 2, 4, 0.522232968, -0.174077656), (4, 1, 2, 1, -0.333333333), (8, 5, 4, 0, 0), (4, 0, 2, 0, 0)],
)
def test_pass_at_k_of_the_worked_example(N, c, k, right, wrong):
    rewards = torch.tensor([[1.0] * c + [0.0] * (N - c)])
    close(adv.pass_at_k(rewards, k), [[right] * c + [wrong] * (N - c)])


@pytest.mark.parametrize(("N", "c", "k"), [(6, 2, 3), (7, 1, 4), (5, 2, 2)])
def test_pass_at_k_is_the_mean_over_all_subsets(N, c, k):
    rewards = [1] * c + [0] * (N - c)
    subsets = list(itertools.combinations(range(N), k))
    value = {subset: max(rewards[i] for i in subset) for subset in subsets}
    mean, std = statistics.fmean(value.values()), statistics.pstdev(value.values())
    expected = [statistics.fmean((value[s] - mean) / std for s in subsets if i in s) for i in range(N)]
    close(adv.pass_at_k(torch.tensor([rewards]), k)[0], expected)


def test_pass_at_k_refuses_and_skips():
    with pytest.raises(ValueError, match="0 or 1"):
        adv.pass_at_k(torch.tensor([[0.5, 1]]), 1)
    with pytest.raises(ValueError, match="k=3"):
        adv.pass_at_k(torch.tensor([[0.0, 1]]), 3)
    gap = adv.pass_at_k(torch.tensor([[1, NAN, 0, 0, 0], [1, NAN, NAN, NAN, NAN]]), 2)
    close(gap[0], [1, 0, -1 / 3, -1 / 3, -1 / 3])
    assert (gap[1] == 0).all()


# ---- advantages per token


def test_process_supervision_of_the_worked_example():
    steps = [[0.9, 0.2, 0.8], [0.4, 0.1], [1, 0.7, 0.6, 0.9]]
    ends = [[2, 4, 7], [1, 5], [0, 3, 4, 6]]
    result = adv.process_supervision(steps, ends, [8, 6, 7], ddof=0, eps=0)
    close(result[0], [0.109398744] * 3 + [-0.802257453] * 2 + [0.583459966] * 3)
    close(result[1], [-2.443238608] * 2 + [-1.713913650] * 4 + [0] * 2)
    close(result[2], [2.333839864] + [1.093987436] * 3 + [0.838723701] + [0.911656197] * 2 + [0])
    sample = adv.process_supervision(steps, ends, [8, 6, 7], ddof=1, eps=0)
    close(sample, result * 0.304695760 / 0.323178657, 1e-8)


def test_process_supervision_of_equal_steps_and_of_bad_steps():
    assert (adv.process_supervision([[0.1, 0.1], [0.1]], [[0, 1], [1]], [2, 2]) == 0).all()
    assert (adv.process_supervision([[1.0], []], [[0], []], [2, 2]) == 0).all()
    with pytest.raises(ValueError, match="step_ends"):
        adv.process_supervision([[1.0]], [[5]], [5])
    with pytest.raises(ValueError, match="completion 0 has 1 step_rewards and 2 step_ends"):
        adv.process_supervision([[1.0]], [[0, 1]], [5])
    with pytest.raises(ValueError, match="1, 1 and 2"):
        adv.process_supervision([[1.0]], [[0]], [5, 5])


@pytest.mark.parametrize(
    ("lam", "row0", "row1", "returns0", "returns1", "white0", "white1"),
    [
        (0.95, [0.795375, 0.7425, 0.55, 0.4], [0.11825, 0.335, 0.3], [0.895375, 0.9425, 0.95, 1], [0.41825, 0.435, 0.5],
         [1.353206715, 1.137923829, 0.354151618, -0.256579975], [-1.403737484, -0.521230332, -0.663734371]),
        (0.0, [0.09, 0.22, 0.17, 0.4], [-0.2, 0.05, 0.3], [0.19, 0.42, 0.57, 1], [0.1, 0.15, 0.5],
         [-0.294207759, 0.375114893, 0.117683104, 1.301869334], [-1.787312136, -0.500153190, 0.787005756]),
    ],
)  # fmt: skip
def test_gae_of_the_worked_example(pad, lam, row0, row1, returns0, returns1, white0, white1):
    rewards = pad([[-0.01, 0.02, -0.03, 1], [0, -0.05, 0.5, 99]])
    values = pad([[0.1, 0.2, 0.4, 0.6], [0.3, 0.1, 0.2, 99]])
    mask = torch.arange(4) < torch.tensor([4, 3])[:, None]
    advantages, returns = adv.gae(rewards, values, mask, gamma=1.0, lam=lam)
    close(advantages, pad([row0, row1]))
    close(returns, pad([returns0, returns1]))
    close(adv.whiten(advantages, mask), pad([white0, white1]))


def test_gae_steps_over_a_tools_words():
    mask = torch.tensor([[True, True, False, False, True, False]])
    rewards = torch.tensor([[0.1, 0.2, 7.0, 7.0, 1.0, 7.0]])
    values = torch.tensor([[0.3, 0.4, 9.0, 9.0, 0.5, 9.0]])
    keep = mask[0]
    together = adv.gae(rewards[:, keep], values[:, keep], mask[:, keep], gamma=0.9, lam=0.8)
    apart = adv.gae(rewards, values, mask, gamma=0.9, lam=0.8)
    for short, long in zip(together, apart):
        close(long[:, keep], short)
        assert (long[:, ~keep] == 0).all()


def test_token_rewards_put_the_score_on_the_last_token():
    mask = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    scores = torch.tensor([2.0, 3.0, 4.0])
    close(adv.token_rewards(scores, mask), [[0, 0, 0, 2, 0], [3, 0, 0, 0, 0], [0] * 5])
    penalty = torch.full((3, 5), 0.5)
    close(adv.token_rewards(scores, mask, penalty), [[-0.5, -0.5, 0, 1.5, 0], [2.5, 0, 0, 0, 0], [0] * 5])
    togo, _ = adv.gae(adv.token_rewards(scores, mask, penalty), torch.zeros(3, 5), mask, gamma=1.0, lam=1.0)
    close(togo[0], [0.5, 1.0, 0, 1.5, 0])
