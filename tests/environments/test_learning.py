"""What the environment said is context: no gradient, ratio, weight or metric comes from its tokens."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from cohort.algorithms import objectives
from cohort.algorithms.advantages import gae
from cohort.algorithms.losses import log_ratio
from cohort.learn.batch import collate
from cohort.learn.learner import Learner
from cohort.rewards import Combination
from cohort.seeds import derive_seed, generator
from cohort.settings import Optimizer
from cohort.train.grpo.advantages import with_advantages
from cohort.types import Group, Prompt, Rollout

LONGEST = 24
COMBINATION = Combination({"r": 1.0}, {})
REWARDS = [[1.0, 0.0, 0.0, 1.0], [0.0, 0.5, 0.0, 1.0]]


def make_groups():
    """Rollouts of one to four turns of different lengths, with tokens of the environment between them."""
    draw = generator(derive_seed(5, "turns"))
    groups = []
    for ticket, rewards in enumerate(REWARDS):
        prompt = replace(Prompt.make(text=str(ticket)), tokens=tuple(map(int, draw.integers(5, 250, 4 + 3 * ticket))))
        rollouts = []
        for member in range(len(rewards)):
            mask = []
            for turn in range(member + 1):
                mask += [False] * (int(draw.integers(1, 4)) if turn else 0) + [True] * int(draw.integers(1, 4))
            tokens = tuple(map(int, draw.integers(5, 250, len(mask))))
            logprobs = tuple(-float(draw.random()) * 3 if own else 0.0 for own in mask)
            rollouts.append(Rollout(tokens, tuple(mask), logprobs, 0, "stop", ""))
        values = tuple(rewards)
        groups.append(Group(ticket, prompt, tuple(rollouts), {"r": values}, values, values))
    assert len({len(r.tokens) for g in groups for r in g.rollouts}) > 4
    return groups


def batch_of(objective):
    return collate(with_advantages(make_groups(), objective, COMBINATION), objective, LONGEST)


def gradients(learner, batch, monkeypatch):
    learner.policy.module.zero_grad()
    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", lambda *_, **__: torch.zeros(()))
    monkeypatch.setattr(learner.optimizer, "step", lambda: None)
    monkeypatch.setattr(learner.optimizer, "zero_grad", lambda **_: None)
    metrics = learner.update(batch, 0.0).metrics
    found = {n: p.grad.clone() for n, p in learner.policy.module.named_parameters() if p.grad is not None}
    return metrics, found


WEIGHTS = {  # of a token of the policy, by hand: all tokens of the batch, those of its rollout
    "dr_grpo": lambda everything, own, rollouts: 1 / (rollouts * LONGEST),
    "dapo": lambda everything, own, rollouts: 1 / everything,
    "grpo": lambda everything, own, rollouts: 1 / (rollouts * own),
}


@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_the_gradient_is_that_of_the_policys_tokens_alone(policy_and_plain, name, monkeypatch):
    """By hand: minus the sum of weight x advantage x log-prob over the policy's tokens, one rollout at a time."""
    policy, plain = policy_and_plain
    objective = objectives.preset(name, kl_coef=0.0)
    groups = with_advantages(make_groups(), objective, COMBINATION)
    everything = sum(sum(r.mask) for g in groups for r in g.rollouts)
    rollouts = sum(len(g.rollouts) for g in groups)
    loss = torch.zeros(())
    for group in groups:
        for rollout, advantage in zip(group.rollouts, group.advantages, strict=True):
            ids = torch.tensor([[*group.prompt.tokens, *rollout.tokens]])
            logprobs = plain(ids, use_cache=False).logits[0].float().log_softmax(-1)
            for at, (token, own) in enumerate(zip(rollout.tokens, rollout.mask, strict=True)):
                if own:
                    weight = WEIGHTS[name](everything, sum(rollout.mask), rollouts)
                    loss = loss - weight * advantage * logprobs[len(group.prompt.tokens) + at - 1, token]
    loss.backward()
    expected = {n: p.grad for n, p in plain.named_parameters() if p.grad is not None}

    learner = Learner(policy, objective, Optimizer(tokens_per_micro_batch=30))
    metrics, found = gradients(learner, collate(groups, objective, LONGEST), monkeypatch)
    assert metrics["tokens/trained"] == everything
    scale = max(g.abs().max().item() for g in expected.values())
    assert scale > 0
    for parameter, gradient in expected.items():
        assert (found[parameter] - gradient).abs().max().item() <= 1e-4 * scale, parameter


def disturbed(batch):
    """The batch with other numbers wherever a token is the environment's."""
    outside = ~batch.mask
    return replace(
        batch,
        advantages=batch.advantages.masked_fill(outside, 1e6),
        sampler_logprobs=batch.sampler_logprobs.masked_fill(outside, -77.0),
        old_logprobs=None if batch.old_logprobs is None else batch.old_logprobs.masked_fill(outside, -55.0),
        ref_logprobs=None if batch.ref_logprobs is None else batch.ref_logprobs.masked_fill(outside, -33.0),
    )


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "gspo", "gmpo", "cispo"])
@pytest.mark.parametrize("several", [False, True])
def test_numbers_at_the_environments_tokens_change_nothing(tiny_policy, name, several, monkeypatch):
    objective = objectives.preset(name, kl_coef=0.0, correction="sequence_truncate", correction_max=2.0)
    learner = Learner(tiny_policy, objective, Optimizer())
    batch = batch_of(objective)
    if several:
        batch = replace(batch, old_logprobs=learner.logprobs(batch))
    metrics, found = gradients(learner, batch, monkeypatch)
    other_metrics, other = gradients(learner, disturbed(batch), monkeypatch)
    assert {k: v for k, v in metrics.items() if v == v} == {k: v for k, v in other_metrics.items() if v == v}
    assert metrics["policy/mismatch"] > 0
    assert all(torch.equal(found[n], other[n]) for n in found)
    assert any(gradient.abs().max() > 0 for gradient in found.values())


def test_the_environments_tokens_are_still_context(tiny_policy, monkeypatch):
    """What was said matters for what the policy says next; only it is not learnt."""
    objective = objectives.preset("dr_grpo")
    batch = batch_of(objective)
    learner = Learner(tiny_policy, objective, Optimizer())
    other = replace(batch, tokens=torch.where(batch.mask, batch.tokens, (batch.tokens + 1) % 250 + 5))
    _, found = gradients(learner, batch, monkeypatch)
    _, changed = gradients(learner, other, monkeypatch)
    assert any(not torch.equal(found[n], changed[n]) for n in found)


def test_a_sequence_ratio_is_over_the_policys_tokens():
    now, old = torch.randn(3, 9), torch.randn(3, 9)
    mask = torch.tensor([[1, 1, 0, 0, 1, 1, 0, 1, 1]] * 3).bool()
    found = log_ratio(now, old, mask, "sequence")
    expected = ((now - old) * mask).sum(1) / 6
    torch.testing.assert_close(found[mask].view(3, 6), expected[:, None].expand(3, 6))


def test_a_critic_sees_the_policys_tokens_as_one_sequence():
    """GAE over a rollout of several turns is GAE over its own tokens, put together."""
    mask = torch.tensor([[1, 1, 0, 0, 1, 0, 1, 1, 0]]).bool()
    values, rewards = torch.randn(1, 9), torch.randn(1, 9) * mask
    advantages, returns = gae(rewards, values.masked_fill(~mask, 99.0), mask, 0.9, 0.8)
    own_rewards, own_values = (x[mask][None] for x in (rewards, values))
    expected, expected_returns = gae(own_rewards, own_values, torch.ones(1, 5).bool(), 0.9, 0.8)
    torch.testing.assert_close(advantages[mask], expected[0])
    torch.testing.assert_close(returns[mask], expected_returns[0])


def test_an_update_moves_only_what_the_policys_tokens_ask_for(tiny_policy):
    """With every token the environment's, a step is a step on nothing."""
    objective = objectives.preset("dr_grpo")
    batch = batch_of(objective)
    batch = replace(batch, mask=torch.zeros_like(batch.mask), token_weight=torch.zeros_like(batch.token_weight))
    before = copy.deepcopy(tiny_policy.module.state_dict())
    report = Learner(tiny_policy, objective, Optimizer()).update(batch, 1e-2)
    assert report.metrics["grad_norm"] == 0
    assert all(torch.equal(before[k], v) for k, v in tiny_policy.module.state_dict().items())
