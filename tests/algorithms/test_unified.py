"""Gradient coefficients in words are those of the loss."""

# ruff: noqa: RUF001

from __future__ import annotations

import pytest
import torch

from cohort.algorithms.equation import Shape
from cohort.algorithms.objectives import per_token_loss, preset
from cohort.algorithms.unified import coefficient, rows

ONE_UPDATE = Shape(prompts=16, group_size=8, max_tokens=48, updates=1)


def test_the_recipe_s_numbers_are_filled_in():
    assert coefficient(preset("grpo"), ONE_UPDATE) == (
        "1/(128·L_i) · [A − 0.04·(1 − π_ref/π_θ)]; A = (r − mean_group(r)) / (std_group(r) + 1e-6)"
    )
    assert coefficient(preset("dr_grpo"), ONE_UPDATE) == "1/(128·48) · [A]; A = r − mean_group(r)"
    assert coefficient(preset("cispo"), Shape(updates=4)).startswith("1/N · [min(ρ, 5)·A];")
    assert coefficient(preset("gspo"), Shape(updates=4)).startswith("1/(B·L_i) · [s·A (0 where clipped)];")
    names = [row.name for row in rows(preset("dr_grpo"), ONE_UPDATE)]
    assert names == [
        *("this recipe", "grpo", "ppo", "rloo", "reinforce", "online_rft", "rft", "dpo", "sft", "best of n"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("estimator", "gradient"),
    [("k2", "pathwise"), ("k3", "pathwise"), ("k1", "weighted"), ("k2", "weighted"), ("k3", "weighted")],
)
def test_the_pull_of_the_kl_is_what_is_said(estimator, gradient):
    o = preset("dr_grpo", kl_coef=0.3, kl_estimator=estimator, kl_gradient=gradient)
    logprobs = torch.tensor([[-1.0, -0.5]], dtype=torch.float64, requires_grad=True)
    ref, mask = torch.tensor([[-0.7, -1.1]], dtype=torch.float64), torch.ones(1, 2, dtype=torch.bool)
    advantages = torch.tensor([[2.0, -1.0]], dtype=torch.float64)
    per_token_loss(
        o, logprobs=logprobs, old_logprobs=logprobs.detach(), mask=mask, advantages=advantages, ref_logprobs=ref,
        sampler_logprobs=logprobs.detach(), entropy=torch.zeros(1, 2),
    ).sum().backward()  # fmt: skip
    u = logprobs.detach() - ref
    said = {
        " − 0.3·log(π_θ/π_ref)": u,
        " − 0.3·(1 − π_ref/π_θ)": 1 - (-u).exp(),
        " − 0.3·ρ·(1 + log(π_θ/π_ref))": 1 + u,
        " − 0.3·ρ·(log(π_θ/π_ref) + log(π_θ/π_ref)²/2)": u + u.square() / 2,
        " − 0.3·ρ·log(π_θ/π_ref)": u,
    }
    pull = coefficient(o, ONE_UPDATE).partition("[A")[2].partition("];")[0]
    torch.testing.assert_close(-logprobs.grad, advantages - 0.3 * said[pull], atol=1e-7, rtol=1e-6)
