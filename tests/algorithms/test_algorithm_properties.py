"""What must hold for any numbers: splits, padding, permutations, shifts, scales, and the family's identities."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.algorithms import kl, objectives
from cohort.algorithms.objectives import (
    PRESETS,
    batchwide,
    own_terms,
    per_token_loss,
    policy_loss,
    preset,
    token_weight,
)

quick = settings(max_examples=25)
seeds = st.integers(0, 2**31 - 1)
names = st.sampled_from(sorted(PRESETS))
MAX_TOKENS = 9


def a_batch(seed: int, B: int = 6, T: int = 5, moved: float = 0.4, equal_lengths: bool = False) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    lengths = torch.full((B,), T) if equal_lengths else torch.randint(1, T + 1, (B,), generator=generator)
    old = -noise(B, T).abs()
    return {
        "logprobs": old + moved * noise(B, T),
        "old_logprobs": old,
        "mask": torch.arange(T) < lengths[:, None],
        "advantages": noise(B),
        "ref_logprobs": old + 0.3 * noise(B, T),
        "sampler_logprobs": old + 0.3 * noise(B, T),
        "entropy": noise(B, T).abs(),
    }


NOBODY = dict.fromkeys(("expert_logprobs", "observation_logprobs"), torch.zeros(0))  # these rows are not of the batch


def run(objective, data, group=None):
    """(loss, gradient) of a batch."""
    logprobs = data["logprobs"].clone().requires_grad_()
    group = torch.arange(len(logprobs)) // 3 if group is None else group
    loss = policy_loss(objective, **{**data, **NOBODY, "logprobs": logprobs}, group=group, max_tokens=MAX_TOKENS)
    return loss.detach(), torch.autograd.grad(loss, logprobs)[0]


def same(a, b, atol=1e-12):
    for x, y in zip(a, b):
        torch.testing.assert_close(x, y, rtol=0, atol=atol)


# ---- splits and padding


@quick
@given(seeds, names, st.lists(st.integers(0, 2), min_size=6, max_size=6))
def test_any_split_into_rows_gives_the_same_loss_and_gradient(seed, name, part_of_row):
    objective, data = preset(name), a_batch(seed)
    whole = run(objective, data)
    groups = torch.arange(6) // 3
    weight = token_weight(objective, data["mask"], groups, MAX_TOKENS)
    everything = {key: value for key, value in data.items() if key != "ref_logprobs"}
    decided = batchwide(objective, **everything, weight=weight, group=groups)
    logprobs = data["logprobs"].clone().requires_grad_()
    total = 0.0
    for part in range(3):
        rows = [i for i in range(6) if part_of_row[i] == part]
        piece = {key: value[rows] for key, value in {**data, "logprobs": logprobs}.items()}
        loss = (per_token_loss(objective, **piece, whole=decided.rows(rows)) * weight[rows]).sum()
        own = {key: value for key, value in piece.items() if key not in ("ref_logprobs", "entropy")}
        loss = loss + own_terms(objective, **own, whole=decided.rows(rows)).sum()
        loss.backward()  # micro-batches add their gradients up
        total += loss.item()
    same((torch.tensor(total, dtype=torch.float64), logprobs.grad), whole)


@quick
@given(seeds, names, st.integers(0, 3), st.integers(0, 3))
def test_padding_changes_nothing_whatever_it_holds(seed, name, left, right):
    data = a_batch(seed)
    loss, gradient = run(preset(name), data)

    def pad(x):
        if x.ndim == 1:
            return x
        junk = False if x.dtype == torch.bool else float("nan")
        x = x if x.dtype == torch.bool else x.masked_fill(~data["mask"], float("nan"))
        return torch.nn.functional.pad(x, (left, right), value=junk)

    padded_loss, padded_gradient = run(preset(name), {key: pad(value) for key, value in data.items()})
    width = gradient.shape[1]
    same((loss, gradient), (padded_loss, padded_gradient[:, left : left + width]))
    assert (padded_gradient[:, :left] == 0).all()
    assert (padded_gradient[:, left + width :] == 0).all()


@quick
@given(seeds, names)
def test_advantages_per_token_that_do_not_vary_are_advantages_per_completion(seed, name):
    data = a_batch(seed)
    spread = {**data, "advantages": data["advantages"][:, None].expand(6, 5)}
    same(run(preset(name), data), run(preset(name), spread))


@pytest.mark.parametrize("name", PRESETS)
def test_the_loss_of_a_token_outside_the_mask_is_zero(name):
    data = a_batch(3)
    loss = per_token_loss(preset(name, filters=(), focus="all", extras=(), blend=(), surrogate="clipped"), **data)
    assert (loss[~data["mask"]] == 0).all()
    assert (loss[data["mask"]] != 0).any()


# ---- rewards to advantages

rewards = st.lists(
    st.lists(st.integers(-8, 8).map(lambda x: x / 4), min_size=4, max_size=4), min_size=1, max_size=3
).map(lambda rows: torch.tensor(rows, dtype=torch.float64))
GROUP_RELATIVE = [
    "grpo",
    "dr_grpo",
    "rloo",
    "lite_ppo",
    "scale_rl",
    "reinforce_pp_baseline",
    "reinforce",
    "reinforce_pp",
]


@quick
@given(rewards, st.sampled_from(GROUP_RELATIVE), st.integers(-5, 5))
def test_adding_a_constant_to_rewards_changes_nothing(r, name, shift):
    same([preset(name).advantages(r + shift)], [preset(name).advantages(r)], 1e-9)


@quick
@given(rewards, st.sampled_from([0.25, 2.0, 8.0]))
def test_scaling_rewards(r, factor):
    for name in ("dr_grpo", "rloo", "reinforce"):
        same([preset(name).advantages(r * factor)], [preset(name).advantages(r) * factor])
    for name in ("grpo", "lite_ppo", "scale_rl"):
        same([preset(name, eps=0.0).advantages(r * factor)], [preset(name, eps=0.0).advantages(r)], 1e-9)


@quick
@given(rewards, st.permutations(range(4)), st.sampled_from(GROUP_RELATIVE))
def test_permuting_a_group_permutes_its_advantages(r, order, name):
    objective = preset(name)
    same([objective.advantages(r[:, order])], [objective.advantages(r)[:, order]])


@quick
@given(rewards)
def test_rloo_is_dr_grpo_times_g_over_g_minus_1(r):
    same([preset("rloo").advantages(r)], [preset("dr_grpo").advantages(r) * 4 / 3])


@quick
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=3), st.integers(2, 8), st.sampled_from(GROUP_RELATIVE)
)
def test_a_group_without_variance_has_no_gradient(values, size, name):
    r = torch.tensor(values, dtype=torch.float32)[:1, None].expand(1, size)
    A = preset(name).advantages(r)
    assert (A == 0).all()
    objective = preset(name, kl_coef=0.0)
    assert not objective.trains_without_signal
    data = {**a_batch(size, B=size), "advantages": A[0]}
    assert (run(objective, data)[1] == 0).all()


def test_a_group_without_variance_keeps_its_kl():
    """The documented exception: with a KL in the loss, or an entropy bonus, no signal does not mean no gradient."""
    data = {**a_batch(0), "advantages": torch.zeros(6, dtype=torch.float64)}
    assert preset("grpo").trains_without_signal
    assert run(preset("grpo"), data)[1].abs().sum() > 0
    assert not preset("rloo").trains_without_signal
    assert (run(preset("rloo"), data)[1] == 0).all()


# ---- the family's identities


@quick
@given(seeds)
def test_gspo_token_is_gspo(seed):
    data = a_batch(seed, moved=0.001)
    same(run(preset("gspo"), data), run(preset("gspo_token"), data))


@quick
@given(seeds)
def test_gmpo_is_gspo_where_nothing_is_clipped(seed):
    data = a_batch(seed, moved=0.05)
    unclipped = {"clip_low": None, "clip_high": None}
    same(run(preset("gmpo", **unclipped), data), run(preset("gspo", **unclipped), data))


@quick
@given(seeds)
def test_on_policy_and_with_equal_lengths_the_family_has_one_gradient(seed):
    data = a_batch(seed, moved=0.0, equal_lengths=True)
    gradients = [
        run(preset(name, kl_coef=0.0), data, group=torch.zeros(6, dtype=torch.long))[1]
        for name in ("grpo", "dapo", "gspo", "gspo_token", "gmpo", "cispo", "sapo", "scale_rl", "verl", "ppo")
    ]
    assert gradients[0].abs().sum() > 0
    for gradient in gradients[1:]:
        same([gradient], gradients[:1])


@quick
@given(seeds)
def test_dual_clip_is_the_two_sided_clip(seed):
    data = a_batch(seed, moved=1.5)
    same(run(preset("dapo", dual_clip=3.0), data), run(preset("dapo", ratio_max=3.0), data))


@quick
@given(seeds, st.sampled_from(["token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "geometric_mask"]))
def test_a_correction_without_mismatch_is_a_no_op(seed, kind):
    data = a_batch(seed)
    data["sampler_logprobs"] = data["old_logprobs"]
    exact = preset("dapo", correction=kind, correction_min=1.0, correction_max=1.0)
    same(run(exact, data), run(preset("dapo"), data), 0)


@quick
@given(st.floats(-20, 20))
def test_k3_is_never_negative(u):
    u = torch.tensor([u], dtype=torch.float64)
    assert kl.estimate(u, torch.zeros(1, dtype=torch.float64), "k3").item() >= 0


@quick
@given(seeds)
def test_on_policy_k2_and_weighted_k3_pull_alike_in_expectation(seed):
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(5, dtype=torch.float64, generator=generator).requires_grad_()
    ref = torch.randn(5, dtype=torch.float64, generator=generator).log_softmax(0)
    logprobs = theta.log_softmax(0)
    p = logprobs.detach().exp()
    k2 = torch.autograd.grad((p * kl.estimate(logprobs, ref, "k2")).sum(), theta, retain_graph=True)
    k3 = torch.autograd.grad((p * kl.weighted(logprobs, ref, logprobs.detach(), "k3")).sum(), theta)
    same(k2, k3)


@pytest.mark.parametrize("name", PRESETS)
def test_the_loss_makes_no_tensor_larger_than_its_inputs(name):
    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple) else (result,):
                if isinstance(tensor, torch.Tensor):
                    self.largest = max(self.largest, tensor.numel())
            return result

    with Sizes() as sizes:
        run(preset(name), a_batch(0))
    assert sizes.largest == 6 * 5


def test_metrics_cost_no_graph():
    data = a_batch(0)
    data["logprobs"].requires_grad_()
    metrics = objectives.loss_metrics(preset("trl"), **data)
    assert all(value.dtype == torch.float64 and not value.requires_grad for value in metrics.values())
