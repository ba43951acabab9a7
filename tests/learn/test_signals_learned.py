"""The later fields through the real learner: equal to the loss of the whole batch, whatever the micro-batches."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tests.learn.test_learner import (
    ALONE,
    REWARDS,
    TEMPERATURE,
    assert_same,
    learner_gradients,
    make_groups,
    plain_logprobs,
)

from cohort.algorithms import objectives
from cohort.learn.batch import collate, decided, rectangle
from cohort.learn.learner import Learner
from cohort.policy.policy import Policy
from cohort.settings import Optimizer
from cohort.train.grpo.advantages import with_advantages
from tiny import make_tiny, on_path

NOW = 4
# Bounds that act on this batch: its tokens have probabilities of a few thousandths.
OBJECTIVES = {
    "dppo_kl": objectives.preset("dppo_kl", mask_low=1e-5, mask_high=1e-5),
    "dppo_tv": objectives.preset("dppo_tv", mask_low=3e-4, mask_high=3e-4),
    "opsm": objectives.preset("opsm", off_policy_delta=0.01),
    "m2po": objectives.preset("m2po", filters=[("second_moment", None, 0.03), ("geometric", 0.1, 2.0)]),
    "interpolated": objectives.preset("dapo", old="interpolate"),
    **{name: objectives.preset(name) for name in ("vespo", "real", "fipo", "echo")},
    "top_entropy": objectives.preset("top_entropy"),
    "clip_cov": objectives.preset("clip_cov", focus_share=0.2, focus_low=0.1),
    "extras": objectives.preset("topr", extras=[("drift_square", "policy", 2.0), ("nll", "positive", 0.5, "uncertain"),
                                                ("drift_absolute", "top_covariance(0.1)", 3.0)]),
}  # fmt: skip


@pytest.fixture
def two(tokenizer):
    """A policy on its compiled path where that is there, and an untouched copy of its model."""
    model = make_tiny("qwen3", tokenizer)
    plain = copy.deepcopy(model)
    plain.set_attn_implementation("eager")
    return on_path(Policy(model, tokenizer), "plain"), plain


def a_batch(learner, objective):
    """A batch of rollouts that are 1 to 3 steps old, as a stage makes it, from a sampler near the policy."""

    def seen(i, r):  # from the second rollout of a group on, the environment wrote the fourth token
        said = tuple(at != 3 or not i for at in range(len(r.tokens)))
        return replace(r, version=i % 3 + 1, mask=said)

    groups = [group.with_(rollouts=tuple(map(seen, range(4), group.rollouts))) for group in make_groups(REWARDS)]
    batch = replace(collate(with_advantages(groups, objective, ALONE), objective, 16), version=NOW)
    apart = torch.randn(len(batch.tokens), generator=torch.Generator().manual_seed(0))
    # whole rows, though some have no advantage: the sampler speaks of all
    now = learner.logprobs(replace(batch, advantages=torch.ones_like(batch.advantages)))
    batch = replace(batch, sampler_logprobs=now + 0.2 * apart)
    batch = learner.start(batch)  # with the entropies, where these are asked for
    old = replace(batch, old_logprobs=now + 0.1 * apart.flip(0))
    return decided(old, objective)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_micro_batches_do_not_matter_and_the_loss_is_that_of_the_batch(two, name, monkeypatch):
    (policy, plain), objective = two, OBJECTIVES[name]
    learners = [Learner(policy, objective, Optimizer(tokens_per_micro_batch=n), TEMPERATURE) for n in (10**6, 30)]
    batch = a_batch(learners[0], objective)
    (loss, one), (parts_loss, parts) = (learner_gradients(learner, batch, monkeypatch) for learner in learners)
    assert_same(parts, one, relative=1e-5)
    assert parts_loss == pytest.approx(loss, rel=1e-5, abs=1e-6)

    def laid_out(values):
        return rectangle(values, batch.lengths)

    logprobs = plain_logprobs(plain, batch)
    mask = laid_out(batch.mask)
    given = {
        "old_logprobs": laid_out(batch.old_logprobs),
        "mask": mask,
        "advantages": laid_out(batch.advantages),
        "sampler_logprobs": laid_out(batch.sampler_logprobs),
        "versions": batch.versions[:, None].expand(mask.shape),
        "current_version": NOW,
    }
    now = logprobs.detach() if name == "real" else given["old_logprobs"]
    about = {"weight": laid_out(batch.token_weight), "rewards": batch.rewards, "group": batch.group}
    observed = None if batch.observed is None else laid_out(batch.observed)
    whole = objectives.batchwide(objective, now, **given, **about, observed=observed,
                                 entropy=None if batch.entropy is None else laid_out(batch.entropy))  # fmt: skip
    per_token = objectives.per_token_loss(objective, logprobs, **given, whole=whole)
    expected = (per_token * laid_out(batch.token_weight)).sum()
    expected = expected + objectives.own_terms(objective, logprobs, **given, whole=whole).sum()
    plain.zero_grad()
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    assert_same(one, {n: p.grad for n, p in plain.named_parameters() if p.grad is not None})
    metrics = objectives.loss_metrics(objective, logprobs, **given, whole=whole)
    left_out = [metrics[name] / metrics["tokens"] for name in ("masked", "filtered") if name in metrics]
    assert all(0 < share < 1 for share in left_out)


def test_expert_rows_are_a_term_of_their_own_and_blend_with_the_policy(two, monkeypatch):
    policy, plain = two
    objective = objectives.preset("chord", blend=(0, 0, 0.25, 0.25))
    batch = collate(with_advantages(make_groups(REWARDS), objective, ALONE), objective, 16)
    batch = decided(replace(batch, version=NOW, old_logprobs=torch.full(batch.tokens.shape, -3.0)), objective)
    expert = collate(make_groups([[0.0], [0.0], [0.0]], seed=5), objective, 16)
    parts = Learner(policy, objective, Optimizer(tokens_per_micro_batch=30), TEMPERATURE)
    loss, gradients = learner_gradients(parts, replace(batch, expert=expert), monkeypatch)

    def laid_out(values):
        return rectangle(values, batch.lengths)

    expected = objectives.policy_loss(
        objective,
        logprobs=plain_logprobs(plain, batch),
        old_logprobs=laid_out(batch.old_logprobs),
        mask=laid_out(batch.mask),
        advantages=laid_out(batch.advantages),
        expert_logprobs=plain_logprobs(plain, expert)[rectangle(expert.mask, expert.lengths)],
    )
    plain.zero_grad()
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    assert_same(gradients, {n: p.grad for n, p in plain.named_parameters() if p.grad is not None})
