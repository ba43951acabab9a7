"""The reward model's loss against the worked numbers."""

from __future__ import annotations

import pytest
import torch

from cohort.algorithms.losses import bradley_terry

CHOSEN = torch.tensor([1.2, 0.3, -0.5], dtype=torch.float64)
REJECTED = torch.tensor([0.4, 0.9, -0.5], dtype=torch.float64)


def test_pairs_mean_and_gradient():
    pairs = [bradley_terry(CHOSEN[i : i + 1], REJECTED[i : i + 1]).item() for i in range(3)]
    assert pairs == pytest.approx([0.371100666, 1.037487950, 0.693147181], abs=1e-9)
    chosen = CHOSEN.clone().requires_grad_()
    loss = bradley_terry(chosen, REJECTED)
    loss.backward()
    assert loss.item() == pytest.approx(0.700578599, abs=1e-9)
    assert chosen.grad.tolist() == pytest.approx([-0.103341840, -0.215218769, -0.166666667], abs=1e-9)


def test_centring_and_margin():
    assert bradley_terry(CHOSEN, REJECTED, centring=0.01).item() == pytest.approx(0.717245266, abs=1e-9)
    margin = torch.tensor([0.5, 0.0, 1.0], dtype=torch.float64)
    shifted = bradley_terry(CHOSEN - margin, REJECTED)
    assert bradley_terry(CHOSEN, REJECTED, margin=margin).item() == pytest.approx(shifted.item(), abs=1e-12)
    by_number = bradley_terry(CHOSEN, REJECTED, margin=0.5)
    assert by_number.item() == pytest.approx(bradley_terry(CHOSEN - 0.5, REJECTED).item(), abs=1e-12)


def test_refusals_and_extremes():
    with pytest.raises(ValueError, match="chosen has shape"):
        bradley_terry(CHOSEN, REJECTED[:2])
    with pytest.raises(ValueError, match="at least one pair"):
        bradley_terry(CHOSEN[:0], REJECTED[:0])
    assert bradley_terry(torch.tensor([-500.0]), torch.tensor([500.0])).item() == 1000.0
