"""Baselines and credit against sums written out here, the worked numbers, and what must hold for any."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from cohort.algorithms import advantages
from cohort.algorithms.objectives import preset

LENGTHS = [3, 1, 4, 2, 4]
GROUPS = [7, 7, 7, 3, 3]
REWARDS = [1.0, 0.0, 0.25, 2.0, -1.0]


def a_batch(T=6):
    """Own tokens with holes between them, and the energies of all places."""
    mask = torch.zeros(5, T, dtype=torch.bool)
    for i, length in enumerate(LENGTHS):
        mask[i, torch.randperm(T, generator=torch.Generator().manual_seed(i))[:length]] = True
    energy = torch.rand(5, T, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    return mask, energy


def by_hand(mask, energy, to_go):
    """A for each own token: {(row, place): A}; `to_go(i, n)` is the reward-to-go of row i at its n-th own token."""
    places = [mask[i].nonzero()[:, 0].tolist() for i in range(5)]
    W = [[sum(energy[i, p].item() for p in own[: n + 1]) for n in range(len(own))] for i, own in enumerate(places)]
    found = {}
    for i, own in enumerate(places):
        for n, place in enumerate(own):
            alive = [j for j in range(5) if GROUPS[j] == GROUPS[i] and LENGTHS[j] > n]
            baseline = sum(to_go(j, n) * W[j][n] for j in alive) / (sum(W[j][n] for j in alive) + 1e-8)
            found[i, place] = to_go(i, n) - (baseline if len(alive) > 1 else 0.0)
    return found


def test_the_optimal_token_baseline_is_its_sums():
    mask, energy = a_batch()
    rewards, group = torch.tensor(REWARDS), torch.tensor(GROUPS)
    found = advantages.optimal_token_baseline(rewards, mask, energy, group)
    for (i, place), a in by_hand(mask, energy, lambda i, n: REWARDS[i]).items():
        assert found[i, place].item() == pytest.approx(a, abs=1e-12)
    assert (found[~mask] == 0).all()

    paid = torch.arange(30.0).view(5, 6).double().sin()
    places = [mask[i].nonzero()[:, 0].tolist() for i in range(5)]
    found = advantages.optimal_token_baseline(paid, mask, energy, group)
    to_go = lambda i, n: sum(paid[i, p].item() for p in places[i][n:])  # noqa: E731
    for (i, place), a in by_hand(mask, energy, to_go).items():
        assert found[i, place].item() == pytest.approx(a, abs=1e-12)


def test_the_optimal_token_baseline_of_the_worked_example(example, pad):
    squares = pad([[0.22, 0.45, 0.10], [0.33, 0.20], [0.57, 0.28, 0.15, 0.09], [0.18, 0.50, 0.31]])
    energy = 1 - 2 * example.old_logprobs.exp() + squares
    found = advantages.optimal_token_baseline(example.rewards[0], example.mask, energy)
    assert found[0, :3].tolist() == pytest.approx([0.577396864, 0.604544296, 0.613831593], abs=1e-9)
    assert found[2].tolist() == pytest.approx([-0.422603136, -0.395455704, -0.386168407, 0], abs=1e-9)


def test_limits_of_the_optimal_token_baseline():
    mask, energy = a_batch()
    ones = torch.ones_like(energy)
    same = advantages.optimal_token_baseline(torch.tensor([1.0, 0.0]), ones[:2] > 0, ones[:2], eps=0.0)
    assert same.tolist() == [[0.5] * 6, [-0.5] * 6]  # equal energies: the mean of those alive
    alone = advantages.optimal_token_baseline(torch.tensor(REWARDS), mask, energy, torch.arange(5))
    assert (alone == torch.tensor(REWARDS)[:, None] * mask).all()  # groups of one: the reward itself
    gap = torch.tensor([1.0, math.nan, 0.25, 2.0, -1.0])
    without = advantages.optimal_token_baseline(gap, mask, energy, torch.tensor(GROUPS))
    rows = [0, 2, 3, 4]
    left_out = advantages.optimal_token_baseline(gap[rows], mask[rows], energy[rows], torch.tensor(GROUPS)[rows])
    assert torch.equal(without[rows], left_out)
    assert (without[1] == 0).all()
    ones, short = torch.ones(5), energy[:, 1:]
    for wrong in ((ones[1:], energy, None), (ones, short, None), (ones, energy, torch.zeros(1))):
        with pytest.raises(ValueError, match="shape"):
            advantages.optimal_token_baseline(wrong[0], mask, wrong[1], wrong[2])


def test_gigpo():
    rewards = [[0.0, 0.0, 1.0], [0.0, 0.0], [0.0, -0.1, 0.0, 0.5]]
    states = [list("abc"), list("ac"), list("abbd")]
    found = advantages.gigpo(rewards, states)
    expected = [(2.134373583, 2.191980045, 1.766729562), (-1.830168826, -1.634276589),
                (-0.304204757, -0.894387688, -0.502874521, -0.132452973)]  # fmt: skip
    for row, wanted in zip(found, expected, strict=True):
        assert row.tolist() == pytest.approx(wanted, abs=2e-6)
    total = [sum(row) for row in rewards]
    grpo = [(r - statistics.fmean(total)) / (statistics.stdev(total) + 1e-6) for r in total]
    distinct = [[(i, t) for t in range(len(r))] for i, r in enumerate(rewards)]
    for alike in (advantages.gigpo(rewards, states, weight=0.0), advantages.gigpo(rewards, distinct)):
        for row, a in zip(alike, grpo, strict=True):
            assert row.tolist() == pytest.approx([a] * len(row), abs=1e-12)
    apart = advantages.gigpo(rewards, states, group=["x", "y", "z"])  # episodes of one: only states of their own
    assert apart[0].tolist() == [0, 0, 0]
    assert apart[2][0] == 0
    assert apart[2][1] != 0
    assert advantages.gigpo([[0.1] * 3] * 4, [list("aaa")] * 4, discount=0.0)[0].tolist() == [0, 0, 0]
    assert advantages.gigpo([], []) == []
    with pytest.raises(ValueError, match="same episodes"):
        advantages.gigpo([[1.0]], [["a", "b"]])


def test_roles():
    found, state = advantages.role_baseline([1, -1, 1, -1, -1, 1], list("xoxoxo"))
    assert found.tolist() == pytest.approx([1, -1, 0.95, -0.95, -1.0975, 1.0975], abs=1e-12)
    assert state == pytest.approx({"x": 0.042625, "o": -0.042625})
    first, kept = advantages.role_baseline([1, -1, 1], list("xox"))
    rest, after = advantages.role_baseline([-1, -1, 1], list("oxo"), state=kept)
    assert [*first.tolist(), *rest.tolist()] == found.tolist()
    assert after == state
    latest, _ = advantages.role_baseline([3, 5, 4], list("aaa"), decay=0.0)
    assert latest.tolist() == [3, 2, -1]
    with pytest.raises(ValueError, match="a role each"):
        advantages.role_baseline([1.0], [])

    keys = [("solver", 0)] * 3 + [("solver", 1)] * 3 + [("proposer", "p")] * 2 + [("proposer", "q")]
    found = advantages.hierarchical(torch.tensor([1, 1, 0, 0, 1, 0, 0.4, 0.8, 0.3], dtype=torch.float64), keys)
    third = 1 / 3
    assert found.tolist() == pytest.approx([third, third, -2 * third, -third, 2 * third, -third, -0.2, 0.2, 0])
    with pytest.raises(ValueError, match="B keys"):
        advantages.hierarchical(torch.ones(2), [0])


def test_what_has_no_reward_is_in_no_mean():
    nan = float("nan")
    assert advantages.hierarchical(torch.tensor([1.0, nan, 0.0]), list("aaa")).tolist() == [0.5, 0, -0.5]
    found, state = advantages.role_baseline([1.0, nan, 1.0], list("aaa"))
    assert found.tolist() == pytest.approx([1, 0, 0.95])
    assert state == pytest.approx({"a": 0.0975})
    both = advantages.gigpo([[0.0, 1.0], [0.0, nan], [0.0, 0.0]], [list("ab")] * 3)
    without = advantages.gigpo([[0.0, 1.0], [0.0, 0.0]], [list("ab")] * 2)
    assert [row.tolist() for row in both] == [without[0].tolist(), [0, 0], without[1].tolist()]


def test_whitening_over_tokens(example):
    o = preset("prorl_v2")
    found = o.advantages(example.rewards, lengths=example.lengths[None])
    assert found[0].tolist() == pytest.approx([1.568929081, 0.392232270, -0.784464541, -0.784464541], abs=1e-9)
    weight = example.lengths[None].double()
    assert (found * weight).sum().item() == pytest.approx(0, abs=1e-12)
    assert (found.square() * weight).sum().item() / 12 == pytest.approx(1, abs=1e-12)
    flat = o.advantages(torch.full((2, 3), 0.1), lengths=torch.ones(2, 3))
    assert (flat == 0).all()
    with pytest.raises(ValueError, match="needs lengths"):
        o.advantages(example.rewards)
    with pytest.raises(ValueError, match="lengths has shape"):
        o.advantages(example.rewards, lengths=torch.ones(4))
    with pytest.raises(ValueError, match="optimal_token_baseline"):
        preset("otb").advantages(example.rewards)
