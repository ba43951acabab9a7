"""The policy loss against the worked example: every printed value and gradient."""

from __future__ import annotations

import pytest
import torch

from cohort.algorithms import losses, objectives
from cohort.algorithms.objectives import policy_loss, preset

# Group mean and sample std gave the advantages; only the loss is looked at here.
TOKEN_MEAN = {"aggregation": "token_mean"}
NO_KL = {"kl_coef": 0.0}
NO_CLIP = {"clip_low": None, "clip_high": None}


def loss_of(objective, example, **changed):
    inputs = {
        name: getattr(example, name)
        for name in ("logprobs", "old_logprobs", "mask", "ref_logprobs", "sampler_logprobs")
    }
    inputs |= {"advantages": example.A, "max_tokens": 4, "group": torch.zeros(4, dtype=torch.long)}
    return policy_loss(objective, **{**inputs, **changed})


@pytest.mark.parametrize(
    ("objective", "advantages", "expected"),
    [
        (preset("grpo", **NO_KL), "A", 0.164455977797),
        (preset("grpo", **NO_KL, **TOKEN_MEAN), "A", 0.254144376721),
        (preset("lite_ppo"), "A", 0.254144376721),
        (preset("dapo"), "A", 0.245440493924),
        (preset("dapo", aggregation="prompt_token_mean"), "A", 0.245440493924),
        (preset("dr_grpo"), "dr_A", 0.091246768334),
        (preset("verl"), "A", 0.233247425393),
        (preset("grpo", **NO_KL, **TOKEN_MEAN, ratio_max=3.0), "A", 0.233247425393),
        (preset("gspo", clip_low=0.2, clip_high=0.2), "A", 0.095450526245),
        (preset("gspo_token", clip_low=0.2, clip_high=0.2), "A", 0.095450526245),
        (preset("gspo_token", clip_low=0.2, clip_high=0.2), "token_A", -0.014934169207),
        (preset("grpo", **NO_KL), "token_A", 0.029251997221),
        (preset("gmpo"), "A", 0.095450526245),
        (preset("cispo", ratio_max=1.2), "A", -0.007968353913),
        (preset("cispo", ratio_max=None, clip_high=0.2), "A", -0.007968353913),
        (preset("cispo", ratio_max=None, clip_low=0.2, clip_high=0.2), "A", -0.006455822515),
        (preset("rloo", surrogate="clipped", ratio_level="sequence_product", aggregation="sequence_mean",
                clip_low=0.2, clip_high=0.2), "rloo_A", 0.325957764006),
        (preset("rloo"), "rloo_A", 0.0275),
        (preset("grpo"), "A", 0.165491244360),
        (preset("dapo", correction="token_truncate", correction_max=2.0), "A", 0.345739905506),
        (preset("dapo", correction="token_mask", correction_max=2.0), "A", -0.087728723050),
    ],
)  # fmt: skip
def test_value(example, objective, advantages, expected):
    example.rloo_A = example.dr_A * 4 / 3
    loss = loss_of(objective, example, advantages=getattr(example, advantages))
    # the printed advantages have ten digits, so the losses agree to about 1e-9
    assert loss.item() == pytest.approx(expected, abs=1.5e-9)
    assert loss.dtype == torch.float64
    assert loss.shape == ()


def test_advantages_of_the_worked_example(example):
    eps_free = preset("grpo", eps=0.0).advantages(example.rewards)[0]
    torch.testing.assert_close(eps_free, example.A, rtol=0, atol=1e-9)
    torch.testing.assert_close(preset("dr_grpo").advantages(example.rewards)[0], example.dr_A, rtol=0, atol=0)


def test_bypass_clips_against_the_sampler(example):
    objective = preset("grpo", **NO_KL, **TOKEN_MEAN)
    loss = loss_of(objective, example, old_logprobs=example.sampler_logprobs)
    assert loss.item() == pytest.approx(0.577026886617, abs=1.5e-9)


def test_mean_of_micro_batch_means_is_something_else(example):
    """TRL's bnpo divides by each micro-batch's own tokens: what weights computed after the split would do."""
    objective = preset("grpo", **NO_KL, **TOKEN_MEAN)
    halves = []
    for rows in (slice(0, 2), slice(2, 4)):
        pieces = {n: getattr(example, n)[rows] for n in ("logprobs", "old_logprobs", "mask")}
        halves.append(policy_loss(objective, **pieces, advantages=example.A[rows]).item())
    assert sum(halves) / 2 == pytest.approx(0.086861758429, abs=1e-9)


GRADIENTS = {
    "grpo": [[-0.114376755, 0, -0.098444985], [-0.021878952, -0.036072293],
             [0.049948385, 0, 0.073038754, 0.048959341], [0.216734314, 0.062095421, 0.075843518]],
    "dapo": [[-0.114376755, 0, -0.098444985], [-0.014585968, -0.024048195],
             [0.066597847, 0, 0.097385005, 0.065279121], [0.216734314, 0.062095421, 0.075843518]],
    "dr_grpo": [[-0.041065277, 0, -0.035345212], [-0.005236875, -0.008634148],
                [0.023910969, 0, 0.034964641, 0.0234375], [0.077815240, 0.022294440, 0.027230490]],
}  # fmt: skip


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient(example, pad, name):
    objective = preset(name, **NO_KL)
    loss = loss_of(objective, example, advantages=example.dr_A if name == "dr_grpo" else example.A)
    (gradient,) = torch.autograd.grad(loss, example.logprobs)
    torch.testing.assert_close(gradient, pad(GRADIENTS[name]), rtol=0, atol=1e-9)


def test_soft_gradient_is_the_unclipped_one_times_its_weight(example):
    soft, plain = preset("sapo"), preset("grpo", **NO_KL, **NO_CLIP)
    (faded,) = torch.autograd.grad(loss_of(soft, example), example.logprobs)
    (full,) = torch.autograd.grad(loss_of(plain, example), example.logprobs)
    share = (faded / full)[example.mask]
    assert share[1].item() == pytest.approx(0.970013301, abs=1e-9)  # ratio 1.349858808, tau 1
    negative = preset("sapo", soft_positive=1.05)
    (faded,) = torch.autograd.grad(loss_of(negative, example), example.logprobs)
    assert (faded / full)[0, 1].item() == pytest.approx(0.967007700, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "value", "slope"),
    [
        ("grpo", 0.0, -0.108798535),
        ("dapo", 0.087038827978, -0.108798535),
        ("cispo", -0.060927179584, -0.108798535),
        ("sapo", -0.037302354848, -0.108798535),
        ("dr_grpo", 0.03125, -0.0390625),
    ],
)
def test_on_policy(example, name, value, slope):
    on_policy = example.old_logprobs.clone().requires_grad_()
    A = example.dr_A if name == "dr_grpo" else example.A
    loss = loss_of(preset(name, **NO_KL), example, logprobs=on_policy, advantages=A)
    (gradient,) = torch.autograd.grad(loss, on_policy)
    assert loss.item() == pytest.approx(value, abs=1e-9)
    assert gradient[0, 0].item() == pytest.approx(slope, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("grpo", -0.190217275260), ("lite_ppo", -0.134038501781), ("dr_grpo", -0.036093401743)],
)
def test_a_masked_truncated_completion_stays_in_the_number_of_completions(example, name, expected):
    cut = torch.tensor([False, False, False, True])
    A = example.dr_A if name == "dr_grpo" else example.A
    masked = objectives.mask_truncated(preset(name, truncated="mask"), example.mask, cut)
    loss = loss_of(preset(name, **NO_KL), example, mask=masked, advantages=A)
    assert loss.item() == pytest.approx(expected, abs=1.5e-9)
    kept = objectives.mask_truncated(preset(name), example.mask, cut)
    assert torch.equal(kept, example.mask)


def test_bandit_end_to_end():
    logits = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    actions = torch.tensor([0, 2, 1, 0])
    logprobs = logits.log_softmax(0)[actions][:, None]
    objective = preset("grpo", eps=0.0, **NO_KL)
    A = objective.advantages(torch.tensor([[1.0, 0, 0, 1]]))[0]
    loss = policy_loss(
        objective, logprobs=logprobs, old_logprobs=logprobs.detach(), mask=torch.ones(4, 1), advantages=A
    )
    assert loss.item() == pytest.approx(0, abs=1e-15)
    loss.backward()
    expected = torch.tensor([-0.433012702, 0.216506351, 0.216506351], dtype=torch.float64)
    torch.testing.assert_close(logits.grad, expected, rtol=0, atol=1e-9)
    after = torch.tensor([0.343301270, -0.221650635, 0.078349365], dtype=torch.float64)
    torch.testing.assert_close(logits.detach() - 0.1 * logits.grad, after, rtol=0, atol=1e-9)


# ---- the clip's truth table, and what bounds it


@pytest.mark.parametrize(("A", "ratio", "slope"), [
    (1, 1.5, 0), (1, 0.5, 1), (-1, 0.5, 0), (-1, 1.5, -1), (1, 1.1, 1), (-1, 0.9, -1), (1, 1.0, 1), (-1, 1.0, -1),
])  # fmt: skip
def test_clip_gradient(A, ratio, slope):
    r = torch.tensor([[ratio]], dtype=torch.float64, requires_grad=True)
    losses.clipped(r, torch.tensor([[float(A)]], dtype=torch.float64), 0.2, 0.2).sum().backward()
    assert r.grad.item() == slope


@pytest.mark.parametrize("bound", [{"dual_clip": 3.0}, {"ratio_max": 3.0}])
def test_negative_advantages_can_be_bounded(bound):
    r = torch.tensor([[2.5, 3.5]], dtype=torch.float64, requires_grad=True)
    A = torch.full((1, 2), -2.0, dtype=torch.float64)
    surrogate = losses.clipped(r, A, 0.2, 0.2, **bound)
    surrogate.sum().backward()
    assert surrogate.tolist() == [[-5.0, -6.0]]
    assert r.grad.tolist() == [[-2.0, 0.0]]


def test_one_sided_clips():
    r = torch.tensor([[0.1, 9.0]], dtype=torch.float64)
    A = torch.tensor([[-1.0, 1.0]], dtype=torch.float64)
    assert losses.clipped(r, A, None, 0.2).tolist() == [[-0.1, 1.2]]
    assert losses.clipped(r, A, 0.2, None).tolist() == [[-0.8, 9.0]]
    assert losses.clipped(r, A, None, None).tolist() == [[-0.1, 9.0]]


def test_geometric_clips_each_token_in_log_space_on_one_side():
    d = torch.tensor([[1.0, -1.0, 0.2]], dtype=torch.float64, requires_grad=True)
    mask = torch.ones(1, 3, dtype=torch.bool)
    up = losses.geometric(d, torch.full((1, 3), 2.0, dtype=torch.float64), mask)
    assert up[0, 0].item() == pytest.approx(2 * torch.tensor((0.4 - 1.0 + 0.2) / 3, dtype=torch.float64).exp().item())
    (slope,) = torch.autograd.grad(up[0, 0], d)
    assert slope[0, 0] == 0
    assert slope[0, 1] > 0
    down = losses.geometric(d, torch.full((1, 3), -2.0, dtype=torch.float64), mask)
    assert down[0, 0].item() == pytest.approx(-2 * torch.tensor((1 - 0.4 + 0.2) / 3, dtype=torch.float64).exp().item())
    (slope,) = torch.autograd.grad(down[0, 0], d)
    assert slope[0, 1] == 0
    assert slope[0, 0] < 0


def test_a_ratio_beyond_float32_gives_no_nan():
    logprobs = torch.tensor([[0.0, 0.0]], requires_grad=True)
    for name in ("grpo", "gspo", "gmpo", "sapo"):
        loss = policy_loss(
            preset(name, **NO_KL), logprobs=logprobs, old_logprobs=torch.full((1, 2), -200.0),
            mask=torch.ones(1, 2), advantages=torch.ones(1),
        )  # fmt: skip
        (gradient,) = torch.autograd.grad(loss, logprobs)
        assert gradient.tolist() == [[0, 0]], name


# ---- the call itself


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_loss_keeps_the_dtype_of_logprobs(example, dtype):
    loss = loss_of(preset("grpo"), example, logprobs=example.logprobs.detach().to(dtype))
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(0.16549, rel=0.05 if dtype == torch.bfloat16 else 1e-4)


def test_gradient_reaches_logprobs_and_entropy_only(example):
    others = {
        n: getattr(example, n).clone().requires_grad_() for n in ("old_logprobs", "ref_logprobs", "sampler_logprobs")
    }
    A, entropy = example.A.clone().requires_grad_(), torch.ones(4, 4, dtype=torch.float64, requires_grad=True)
    objective = preset("grpo", correction="token_truncate", correction_max=2.0, entropy_coef=0.01)
    loss_of(objective, example, **others, advantages=A, entropy=entropy).backward()
    assert all(tensor.grad is None for tensor in (*others.values(), A))
    assert example.logprobs.grad.abs().sum() > 0
    expected = -0.01 * example.mask.double() / (4 * example.lengths[:, None])
    torch.testing.assert_close(entropy.grad, expected, rtol=0, atol=1e-15)


def test_the_entropy_bonus_is_subtracted(example):
    entropy = torch.full((4, 4), 2.0, dtype=torch.float64)
    with_bonus = loss_of(preset("grpo", entropy_coef=0.01), example, entropy=entropy)
    assert (loss_of(preset("grpo"), example) - with_bonus).item() == pytest.approx(0.02, abs=1e-12)


@pytest.mark.parametrize(
    ("objective", "missing", "message"),
    [
        (preset("grpo"), "ref_logprobs", "ref_logprobs is missing and kl_coef=0.04"),
        (preset("dr_grpo"), "max_tokens", "constant_length.*max_tokens"),
        (preset("scale_rl"), "group", "prompt_token_mean.*group"),
        (preset("dapo", entropy_coef=0.1), "entropy", "entropy is missing and entropy_coef=0.1"),
    ],
)
def test_what_is_needed_and_missing_is_named(example, objective, missing, message):
    with pytest.raises(ValueError, match=message):
        loss_of(objective, example, **{missing: None})


def test_without_a_sampler_of_its_own_there_is_nothing_to_correct(example):
    corrected = loss_of(preset("trl"), example, sampler_logprobs=None)
    assert corrected.item() == loss_of(preset("trl", correction="off", correction_max=None), example).item()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mask": torch.ones(4, 3)}, r"mask has shape \(4, 3\) and logprobs \(4, 4\)"),
        ({"old_logprobs": torch.ones(2, 4)}, "old_logprobs has shape"),
        ({"advantages": torch.ones(3)}, r"advantages has shape \(3,\); give \[4\] or \[4, 4\]"),
        ({"logprobs": torch.ones(4)}, "logprobs has shape"),
    ],
)
def test_wrong_shapes_are_named(example, changed, message):
    with pytest.raises(ValueError, match=message):
        loss_of(preset("grpo"), example, **changed)


# ---- metrics


def test_metrics_of_the_worked_example(example):
    inputs = (example.logprobs, example.old_logprobs, example.mask, example.A)
    metrics = objectives.loss_metrics(
        preset("dapo"), *inputs, ref_logprobs=example.ref_logprobs, sampler_logprobs=example.sampler_logprobs
    )
    assert metrics["tokens"] == 12
    assert metrics["clip_low"] == 1
    assert metrics["clip_high"] == 1
    assert metrics["dual_clip"] == 0
    assert metrics["kl"].item() / 12 == pytest.approx(0.027273337832, abs=1e-12)
    assert metrics["ratio_max"].item() == pytest.approx(3.320116923, abs=1e-9)
    assert metrics["mismatch"].item() == pytest.approx(2.59, abs=1e-12)
    assert objectives.loss_metrics(preset("verl"), *inputs)["dual_clip"] == 1
    assert objectives.loss_metrics(preset("cispo", ratio_max=1.2), *inputs)["clip_high"] == 3
    capped = preset("dapo", correction="token_truncate", correction_max=2.0)
    assert objectives.loss_metrics(capped, *inputs, sampler_logprobs=example.sampler_logprobs)["corrected"] == 1
    assert not any(value.requires_grad for value in metrics.values())


def test_metrics_of_the_geometric_clip_look_at_each_token(example):
    inputs = (example.logprobs, example.old_logprobs, example.mask, example.A)
    metrics = objectives.loss_metrics(preset("gmpo", clip_low=0.06, clip_high=0.25), *inputs)
    assert metrics["clip_low"] == 1  # -0.25 in the third completion, A < 0
    assert metrics["clip_high"] == 1  # 0.30 in the first, A > 0


def test_metrics_of_rows_merge_to_those_of_the_batch(example):
    def metrics(rows):
        names = ("logprobs", "old_logprobs", "mask", "A", "ref_logprobs", "sampler_logprobs")
        return objectives.loss_metrics(preset("trl"), *(getattr(example, name)[rows] for name in names))

    whole, merged = metrics(slice(None)), objectives.merge_metrics(metrics(slice(0, 1)), metrics(slice(1, 4)))
    assert whole.keys() == merged.keys()
    for name in whole:
        assert merged[name].item() == pytest.approx(whole[name].item(), abs=1e-12), name


def test_on_policy_nothing_is_clipped(example):
    for name in objectives.PRESETS:
        nothing_of_batches = {"filters": (), "extras": (), "blend": (), "focus": "all"}
        if name == "real":
            nothing_of_batches["surrogate"] = "clipped"
        metrics = objectives.loss_metrics(
            preset(name, **nothing_of_batches), example.old_logprobs, example.old_logprobs, example.mask, example.A,
            sampler_logprobs=example.old_logprobs,
        )  # fmt: skip
        assert metrics["clip_low"] == metrics["clip_high"] == metrics["dual_clip"] == 0, name
        assert metrics["ratio"].item() == pytest.approx(12)


# ---- KL in the reward


def test_kl_in_the_reward(example):
    penalty = objectives.kl_in_reward(preset("rloo"), example.logprobs, example.ref_logprobs, example.mask)
    assert penalty.sum().item() == pytest.approx(0.03 * 0.6, abs=1e-12)  # the example's u add up to 12 * 0.05
    assert (penalty[~example.mask] == 0).all()
    assert not penalty.requires_grad
    for name in ("grpo", "dapo"):
        assert (objectives.kl_in_reward(preset(name), example.logprobs, None, example.mask) == 0).all()
    with pytest.raises(ValueError, match="ref_logprobs"):
        objectives.kl_in_reward(preset("rloo"), example.logprobs, None, example.mask)
    without = loss_of(preset("rloo", kl_coef=0.0), example)
    assert loss_of(preset("rloo"), example, ref_logprobs=None) == without  # it is not in the loss as well
