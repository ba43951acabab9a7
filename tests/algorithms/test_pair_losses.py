"""DPO and IPO against closed forms: their values, their gradients, and where they are smallest."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from cohort.algorithms.losses import dpo, ipo

F64 = torch.float64
CHOSEN, REJECTED = torch.tensor([-3.0, -2.5, -7.0], dtype=F64), torch.tensor([-4.0, -2.0, -3.0], dtype=F64)
REF_CHOSEN, REF_REJECTED = torch.tensor([-3.5, -2.0, -6.0], dtype=F64), torch.tensor([-3.5, -2.0, -4.0], dtype=F64)
H = [1.0, -0.5, -2.0]  # of the three pairs: (chosen - reference) - (rejected - reference)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(("beta", "smoothing"), [(0.1, 0.0), (0.5, 0.0), (0.5, 0.1)])
def test_dpo_is_the_papers_loss_and_its_gradient_is_that_of_equation_7(beta, smoothing):
    chosen, rejected = CHOSEN.clone().requires_grad_(), REJECTED.clone().requires_grad_()
    loss = dpo(chosen, rejected, REF_CHOSEN, REF_REJECTED, beta=beta, label_smoothing=smoothing)
    expected = [-(1 - smoothing) * math.log(sigmoid(beta * h)) - smoothing * math.log(sigmoid(-beta * h)) for h in H]
    assert_close(loss, torch.tensor(expected, dtype=F64), rtol=1e-12, atol=1e-12)
    loss.sum().backward()
    slope = [-beta * ((1 - smoothing) * sigmoid(-beta * h) - smoothing * sigmoid(beta * h)) for h in H]
    assert_close(chosen.grad, torch.tensor(slope, dtype=F64), rtol=1e-12, atol=1e-12)
    assert_close(rejected.grad, -torch.tensor(slope, dtype=F64), rtol=1e-12, atol=1e-12)


def test_a_policy_that_is_the_reference_pays_log_2():
    assert_close(dpo(CHOSEN, REJECTED, CHOSEN, REJECTED), torch.full((3,), math.log(2), dtype=F64))


def test_with_smoothed_labels_the_loss_is_smallest_at_a_finite_margin():
    beta, e = 0.2, 0.1
    best = math.log((1 - e) / e) / beta
    margins = torch.tensor([best - 0.1, best, best + 0.1], dtype=F64)
    zero = torch.zeros(3, dtype=F64)
    low, least, high = dpo(margins, zero, zero, zero, beta=beta, label_smoothing=e).tolist()
    assert least < min(low, high)


def test_ipo_is_the_square_to_half_of_one_over_tau():
    tau = 0.25
    chosen = CHOSEN.clone().requires_grad_()
    loss = ipo(chosen, REJECTED, REF_CHOSEN, REF_REJECTED, beta=tau)
    assert_close(loss, torch.tensor([(h - 2.0) ** 2 for h in H], dtype=F64), rtol=1e-12, atol=1e-12)
    loss.sum().backward()
    assert_close(chosen.grad, torch.tensor([2 * (h - 2.0) for h in H], dtype=F64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", [dpo, ipo])
def test_log_probs_that_are_no_pairs_are_refused(loss):
    with pytest.raises(ValueError, match="one log-prob per answer"):
        loss(CHOSEN, REJECTED[:2], REF_CHOSEN, REF_REJECTED)
    with pytest.raises(ValueError, match="at least one pair"):
        loss(*[torch.zeros(0)] * 4)
