"""The load of a mixture's experts, and the loss that evens it out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from cohort.algorithms.presets import preset
from cohort.learn.batch import collate
from cohort.learn.learner import Learner
from cohort.learn.routing import load
from cohort.policy.generic import Mode
from cohort.policy.policy import Policy
from cohort.settings import Optimizer
from cohort.types import Group, Prompt, Rollout, UserError
from tiny import SIZES, make_tiny

OBJECTIVE = preset("dr_grpo", entropy_coef=0.0)


@pytest.fixture
def mixture(tokenizer):
    import transformers as t

    torch.manual_seed(3)
    sizes: dict[str, Any] = dict(SIZES, vocab_size=len(tokenizer), pad_token_id=0, eos_token_id=1, bos_token_id=None)
    config = t.Qwen3MoeConfig(**sizes, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    model = t.Qwen3MoeForCausalLM(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0, 0.1)
    return model


def batch():
    """Three groups of four rollouts of ragged lengths."""
    draw, paid, groups = torch.Generator().manual_seed(0), (1.0, -1.0, 0.5, -0.5), []
    for ticket in range(3):
        prompt = Prompt(str(ticket), tokens=torch.randint(5, 250, (4 + 5 * ticket,), generator=draw).tolist())
        lengths = torch.randint(1, 12, (4,), generator=draw).tolist()
        rows = [torch.randint(5, 250, (n,), generator=draw).tolist() for n in lengths]
        rollouts = tuple(Rollout(row, (True,) * len(row), (-1.0,) * len(row), 0, "stop", "") for row in rows)
        groups.append(Group(ticket, prompt, rollouts, {}, paid, paid, paid))
    return collate(groups, OBJECTIVE, 16)


def updated(model, tokenizer, coef, micro=16384, mode=None, steps=1):
    policy = Policy(model, tokenizer, mode=mode)
    optimizer = Optimizer(learning_rate=1e-2, tokens_per_micro_batch=micro, gradient_clip=0)
    learner = Learner(policy, OBJECTIVE, optimizer, router_aux_coef=coef)
    reports = [learner.update(batch(), 1e-2).metrics for _ in range(steps)]
    return {name: p.detach() for name, p in policy.module.named_parameters()}, reports


def test_the_loss_depends_neither_on_micro_batches_nor_on_the_path(mixture, tokenizer):
    given = [copy.deepcopy(mixture) for _ in range(4)]
    whole, (first,) = updated(given[0], tokenizer, 1.0)
    for model, micro, mode in [(given[1], 40, None), (given[2], 16384, Mode("a test")), (given[3], 60, Mode("a test"))]:
        split, (other,) = updated(model, tokenizer, 1.0, micro, mode)
        assert other["loss"] == pytest.approx(first["loss"], abs=1e-5)
        assert other["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-4)
        assert other["router/busiest"] == pytest.approx(first["router/busiest"])
        assert all((split[name] - whole[name]).abs().max() < 1e-3 for name in whole if "gate" in name)


def test_the_loss_evens_out_the_load(mixture, tokenizer):
    with torch.no_grad():
        for name, parameter in mixture.named_parameters():
            if name.endswith("mlp.gate.weight"):
                parameter.add_(torch.tensor([0.5, 0.4, 0.0, 0.0])[:, None] * parameter.norm())
    off, on = (updated(copy.deepcopy(mixture), tokenizer, coef, steps=8)[1] for coef in (0.0, 1.0))
    assert off[0]["router/evenness"] == on[0]["router/evenness"]
    assert on[-1]["router/evenness"] > off[-1]["router/evenness"]
    assert on[-1]["router/busiest"] < off[-1]["router/busiest"]


def test_a_load_as_two_numbers():
    found = load(torch.tensor([[2.0, 2.0], [4.0, 0.0]]))
    assert found == {"router/busiest": pytest.approx(0.75), "router/evenness": pytest.approx(0.5)}


def test_a_dense_model_has_no_router(tokenizer):
    policy = Policy(make_tiny("qwen3", tokenizer), tokenizer)
    with pytest.raises(UserError, match="router_aux_coef is for a mixture of experts, and Qwen3ForCausalLM"):
        Learner(policy, OBJECTIVE, Optimizer(), router_aux_coef=0.1)
    _, (report,) = updated(make_tiny("qwen3", tokenizer), tokenizer, 0.0)
    assert not any(name.startswith("router/") for name in report)
