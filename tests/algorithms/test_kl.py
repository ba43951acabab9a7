"""KL estimators: values, gradients in expectation, and their spread."""

from __future__ import annotations

import math

import pytest
import torch

from cohort.algorithms import kl

THETA = torch.tensor([0.2, -0.1, 0.5], dtype=torch.float64)
REF = torch.tensor([0.0, 0.3, -0.2], dtype=torch.float64).log_softmax(0)
REVERSE = torch.tensor([-0.024123912, -0.161688121, 0.185812033], dtype=torch.float64)
FORWARD = torch.tensor([0.007955871, -0.186318036, 0.178362165], dtype=torch.float64)


def expected_gradient(estimator):
    """E over the policy's own samples, held fixed, of the gradient of the estimator."""
    theta = THETA.clone().requires_grad_()
    logprobs = theta.log_softmax(0)
    (gradient,) = torch.autograd.grad((logprobs.detach().exp() * estimator(logprobs)).sum(), theta)
    return gradient


def test_values_over_three_categories():
    logprobs = THETA.log_softmax(0)
    p = logprobs.exp()
    assert (p * kl.estimate(logprobs, REF, "k1")).sum().item() == pytest.approx(0.099455606, abs=1e-9)
    assert (p * kl.estimate(logprobs, REF, "k3")).sum().item() == pytest.approx(0.099455606, abs=1e-9)
    assert (p * kl.estimate(logprobs, REF, "k2")).sum().item() == pytest.approx(0.099905153, abs=1e-9)


@pytest.mark.parametrize(
    ("form", "estimator", "expected"),
    [
        ("pathwise", "k1", torch.zeros(3, dtype=torch.float64)),
        ("pathwise", "k2", REVERSE),
        ("pathwise", "k3", FORWARD),
        ("weighted", "k1", REVERSE),
        ("weighted", "k3", REVERSE),
    ],
)
def test_gradients_in_expectation(form, estimator, expected):
    def value(logprobs):
        if form == "weighted":
            return kl.weighted(logprobs, REF, logprobs.detach(), estimator)
        return kl.estimate(logprobs, REF, estimator)

    torch.testing.assert_close(expected_gradient(value), expected, rtol=0, atol=1e-9)


def test_weighted_is_unbiased_off_policy():
    logprobs, old = THETA.log_softmax(0), torch.tensor([-0.3, 0.4, 0.1], dtype=torch.float64).log_softmax(0)
    for estimator in ("k1", "k3"):
        assert (old.exp() * kl.weighted(logprobs, REF, old, estimator)).sum().item() == pytest.approx(
            0.099455606, abs=1e-9
        )


@pytest.mark.parametrize(("estimator", "by_token", "by_sequence"), [
    ("k1", 0.05, 0.051041666667), ("k2", 0.028333333333, 0.026692708333), ("k3", 0.027273337832, 0.025881664071),
])  # fmt: skip
def test_means_of_the_worked_example(example, estimator, by_token, by_sequence):
    value = kl.estimate(example.logprobs, example.ref_logprobs, estimator).detach() * example.mask
    assert (value.sum() / 12).item() == pytest.approx(by_token, abs=1e-12)
    assert (value.sum(1) / example.lengths).mean().item() == pytest.approx(by_sequence, abs=1e-12)


@pytest.mark.parametrize(("m", "k1_std", "k2_bias", "k2_std", "k3_std"), [
    (0.1, 20.0, 0.0025, 1.417745, 1.416575), (1.0, 2.0, 0.25, 1.732051, 1.695030),
])  # fmt: skip
def test_schulmans_toy(m, k1_std, k2_bias, k2_std, k3_std):
    """x ~ N(0, 1), reference N(m, 1), by integration over a fine grid; all in units of the true KL."""
    x = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi) * (x[1] - x[0])
    true = m * m / 2

    def mean_and_std(estimator):
        value = kl.estimate(-x.square() / 2, -(x - m).square() / 2, estimator) / true
        mean = (density * value).sum()
        return mean.item(), (density * (value - mean).square()).sum().sqrt().item()

    assert mean_and_std("k1") == pytest.approx((1, k1_std), abs=1e-6)
    assert mean_and_std("k2") == pytest.approx((1 + k2_bias, k2_std), abs=1e-6)
    assert mean_and_std("k3") == pytest.approx((1, k3_std), abs=1e-6)


def test_k3_keeps_the_digits_of_a_small_difference():
    u = torch.tensor([1e-4], dtype=torch.float32)
    assert kl.estimate(u, torch.zeros(1), "k3").item() == pytest.approx(5e-9, rel=0.01)
    assert kl.estimate(torch.zeros(1), torch.zeros(1), "k3").item() == 0


def test_an_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match="k4"):
        kl.estimate(THETA, REF, "k4")
