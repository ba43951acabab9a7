"""Every preset against its published formula, written here as its own sums over numbers: value and gradient, float64.

Nothing below uses the package's helpers: a formula gets lists of 0-dim tensors and loops over them as the paper does.
"""

from __future__ import annotations

import math
import statistics
from types import SimpleNamespace

import pytest
import torch

from cohort.algorithms import objectives
from cohort.algorithms.objectives import policy_loss, preset

PRESETS = dict(list(objectives.PRESETS.items())[:21])  # those that came later are in test_signals.py

B, T, G, MAX_TOKENS = 8, 6, 4, 10
LENGTHS = [3, 6, 1, 4, 5, 2, 6, 3]
REWARDS = [[1.0, 0.0, 0.5, 0.0], [0.0, 1.0, 0.25, 1.0]]
ROWS = range(B)
FAR, NEAR = 1.0, 0.002  # how far the policy has moved: enough for clips of 0.2, and of 4e-4


def batch(moved: float, seed: int = 0) -> SimpleNamespace:
    generator = torch.Generator().manual_seed(seed)

    def noise():
        return torch.randn(B, T, dtype=torch.float64, generator=generator)

    old = -noise().abs() - 0.2
    logprobs = old + moved * noise()
    return SimpleNamespace(
        logprobs=logprobs,
        old=old,
        ref=logprobs + 0.3 * noise(),
        sampler=old + 0.3 * noise(),
        mask=torch.arange(T) < torch.tensor(LENGTHS)[:, None],
        group=torch.tensor([0] * G + [1] * G),
    )


# ---- rewards to advantages, written out


def by_group(one):
    return [a for rewards in REWARDS for a in one(rewards)]


def grpo_advantages(eps):
    return by_group(lambda r: [(x - statistics.fmean(r)) / (statistics.stdev(r) + eps) for x in r])


def centred():
    return by_group(lambda r: [x - statistics.fmean(r) for x in r])


def leave_one_out():
    return by_group(lambda r: [x - (sum(r) - x) / (len(r) - 1) for x in r])


EVERY_REWARD = [x for rewards in REWARDS for x in rewards]
BATCH_MEAN, BATCH_STD = statistics.fmean(EVERY_REWARD), statistics.stdev(EVERY_REWARD)

ADVANTAGES = {
    **{name: grpo_advantages(1e-6) for name in PRESETS},
    "dr_grpo": centred(),
    "gmpo": grpo_advantages(1e-8),
    "lite_ppo": [a / (BATCH_STD + 1e-6) for a in centred()],
    "scale_rl": [a / (statistics.stdev(centred()) + 1e-6) for a in centred()],
    "max_rl": by_group(lambda r: [(x - statistics.fmean(r)) / statistics.fmean(r) for x in r]),
    "rloo": leave_one_out(),
    "reinforce": [x - BATCH_MEAN for x in EVERY_REWARD],
    "reinforce_pp": [(x - BATCH_MEAN) / (BATCH_STD + 1e-8) for x in EVERY_REWARD],
    "reinforce_pp_baseline": [a / (statistics.stdev(centred()) + 1e-8) for a in centred()],
    "trl": grpo_advantages(1e-4),
}
del ADVANTAGES["ppo"]  # its advantages come from a critic


@pytest.mark.parametrize("name", ADVANTAGES)
def test_advantages(name):
    result = preset(name).advantages(torch.tensor(REWARDS, dtype=torch.float64))
    assert result.flatten().tolist() == pytest.approx(ADVANTAGES[name], abs=1e-12)


# ---- the surrogates, one token or one completion at a time; A is a number, the rest are 0-dim tensors


def clipped(ratio, A, low, high):
    """min(ratio * A, clip(ratio) * A), as the cases it stands for."""
    if A >= 0:
        return ratio * A if ratio.item() <= high else high * A
    return ratio * A if ratio.item() >= low else torch.tensor(low * A, dtype=torch.float64)


def k3(logprob, ref):
    return torch.exp(ref - logprob) - (ref - logprob) - 1


class Formula:
    """One batch as nested lists self.l[i][t], self.old[i][t], ..., self.L[i], self.A[i]; each method is a paper's J."""

    def __init__(self, logprobs, data, A):
        self.l = [[logprobs[i, t] for t in range(LENGTHS[i])] for i in ROWS]
        self.old, self.ref, self.mu = (
            [[x[i, t].item() for t in range(LENGTHS[i])] for i in ROWS] for x in (data.old, data.ref, data.sampler)
        )
        self.L, self.A = LENGTHS, A
        self.rho = [[torch.exp(self.l[i][t] - self.old[i][t]) for t in range(self.L[i])] for i in ROWS]

    def s(self, i):
        return torch.exp(sum(self.l[i][t] - self.old[i][t] for t in range(self.L[i])) / self.L[i])

    def deepseek(self, low, high, beta):
        total = 0.0
        for i in ROWS:
            inner = 0.0
            for t in range(self.L[i]):
                inner += clipped(self.rho[i][t], self.A[i], low, high) - beta * k3(self.l[i][t], self.ref[i][t])
            total += inner / self.L[i]
        return total / B

    def grpo(self):
        return self.deepseek(0.8, 1.2, 0.04)

    def r1_zero(self):
        return self.deepseek(0.8, 1.2, 0.001)

    def r1(self):
        return self.deepseek(0.0, 11.0, 0.001)

    def reinforce_pp(self):
        return self.deepseek(0.8, 1.2, 0.0)

    def reinforce_pp_baseline(self):
        square = (
            sum(sum((self.l[i][t] - self.ref[i][t]) ** 2 / 2 for t in range(self.L[i])) / self.L[i] for i in ROWS) / B
        )
        return self.deepseek(0.8, 1.2, 0.0) - 0.001 * square

    def over_tokens(self, low, high):
        return sum(clipped(self.rho[i][t], self.A[i], low, high) for i in ROWS for t in range(self.L[i]))

    def dapo(self):
        return self.over_tokens(0.8, 1.28) / sum(self.L)

    def lite_ppo(self):
        return self.over_tokens(0.8, 1.2) / sum(self.L)

    ppo = lite_ppo

    def dr_grpo(self):
        return self.over_tokens(0.8, 1.2) / (B * MAX_TOKENS)

    def verl(self):
        total = 0.0
        for i in ROWS:
            for t in range(self.L[i]):
                x = clipped(self.rho[i][t], self.A[i], 0.8, 1.2)
                floor = torch.tensor(3.0 * self.A[i], dtype=torch.float64)
                total += floor if self.A[i] < 0 and x.item() < floor.item() else x
        return total / sum(self.L)

    def trl(self):
        total = 0.0
        for i in ROWS:
            w = math.exp(sum(self.old[i][t] - self.mu[i][t] for t in range(self.L[i])))
            if w <= 3.0:
                total += w * sum(clipped(self.rho[i][t], self.A[i], 0.8, 1.2) for t in range(self.L[i]))
        return total / sum(self.L)

    def gspo(self):
        return sum(clipped(self.s(i), self.A[i], 1 - 3e-4, 1 + 4e-4) for i in ROWS) / B

    def gspo_token(self):
        total = 0.0
        for i in ROWS:
            frozen = self.s(i).item()
            for t in range(self.L[i]):
                s_t = frozen * torch.exp(self.l[i][t] - self.l[i][t].item())
                total += clipped(s_t, self.A[i], 1 - 3e-4, 1 + 4e-4) / self.L[i]
        return total / B

    def luspo(self):
        return sum(self.L[i] * clipped(self.s(i), self.A[i], 1 - 2e-3, 1 + 2.5e-3) for i in ROWS) / B

    def gmpo(self):
        total = 0.0
        for i in ROWS:
            exponent = 0.0
            for t in range(self.L[i]):
                d = self.l[i][t] - self.old[i][t]
                if self.A[i] >= 0:
                    exponent += d if d.item() <= 0.4 else 0.4
                else:
                    exponent += d if d.item() >= -0.4 else -0.4
            total += self.A[i] * torch.exp(torch.as_tensor(exponent / self.L[i], dtype=torch.float64))
        return total / B

    def cispo(self):
        total = 0.0
        for i in ROWS:
            for t in range(self.L[i]):
                total += min(self.rho[i][t].item(), 5.0) * self.A[i] * self.l[i][t]
        return total / sum(self.L)

    def scale_rl(self):
        total = 0.0
        for p in range(B // G):
            rows = range(p * G, (p + 1) * G)
            inner = 0.0
            for i in rows:
                for t in range(self.L[i]):
                    inner += min(self.rho[i][t].item(), 5.0) * self.A[i] * self.l[i][t]
            total += inner / sum(self.L[i] for i in rows)
        return total / (B // G)

    def sapo(self):
        total = 0.0
        for i in ROWS:
            tau = 1.0 if self.A[i] > 0 else 1.05
            for t in range(self.L[i]):
                gate = 1 / (1 + torch.exp(-tau * (self.rho[i][t] - 1)))
                total += 4 / tau * gate * self.A[i] / self.L[i]
        return total / B

    def policy_gradient(self):
        return sum(self.A[i] * sum(self.l[i]) for i in ROWS) / B

    rloo = reinforce = max_rl = policy_gradient


@pytest.mark.parametrize("moved", [FAR, NEAR])
@pytest.mark.parametrize("name", PRESETS)
def test_policy_loss(name, moved):
    data = batch(moved)
    A = ADVANTAGES.get(name, ADVANTAGES["grpo"])
    ours = data.logprobs.clone().requires_grad_()
    loss = policy_loss(
        preset(name),
        logprobs=ours,
        old_logprobs=data.old,
        mask=data.mask,
        advantages=torch.tensor(A, dtype=torch.float64),
        ref_logprobs=data.ref,
        sampler_logprobs=data.sampler,
        group=data.group,
        max_tokens=MAX_TOKENS,
    )
    theirs = data.logprobs.clone().requires_grad_()
    expected = -getattr(Formula(theirs, data, A), name)()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    (our_gradient,) = torch.autograd.grad(loss, ours)
    (their_gradient,) = torch.autograd.grad(expected, theirs)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=0, atol=1e-9)
    assert their_gradient.abs().sum() > 0


@pytest.mark.parametrize("moved", [FAR, NEAR])
@pytest.mark.parametrize(("name", "low", "high"), [("grpo", 0.8, 1.2), ("gspo_token", 1 - 3e-4, 1 + 4e-4)])
def test_policy_loss_with_an_advantage_for_each_token(name, low, high, moved):
    """Process supervision, and what GSPO-token is for: here its gradient is not GSPO's."""
    data = batch(moved, seed=1)
    A = torch.randn(B, T, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ours = data.logprobs.clone().requires_grad_()
    loss = policy_loss(preset(name, kl_coef=0.0), logprobs=ours, old_logprobs=data.old, mask=data.mask, advantages=A)
    theirs = data.logprobs.clone().requires_grad_()
    formula, expected = Formula(theirs, data, None), 0.0
    for i in ROWS:
        for t in range(LENGTHS[i]):
            ratio = formula.rho[i][t]
            if name == "gspo_token":
                ratio = formula.s(i).item() * torch.exp(theirs[i, t] - theirs[i, t].item())
            expected -= clipped(ratio, A[i, t].item(), low, high) / (B * LENGTHS[i])
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)  # type: ignore[attr-defined]
    gradients = torch.autograd.grad(loss, ours) + torch.autograd.grad(expected, theirs)  # type: ignore[call-overload]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)


def test_the_batch_is_one_on_which_the_choices_show():
    """If two formulas agreed here, the comparison above could not tell the presets apart."""
    values = {}
    for name in PRESETS:
        data = batch(FAR)
        A = ADVANTAGES.get(name, ADVANTAGES["grpo"])
        values[name] = getattr(Formula(data.logprobs, data, A), name)().item()
    same = {("gspo", "gspo_token")}  # identical by construction for advantages without a token index
    names = list(PRESETS)
    for a in names:
        for b in names[names.index(a) + 1 :]:
            if (a, b) not in same:
                assert abs(values[a] - values[b]) > 1e-9, (a, b)


def test_every_preset_is_named_sourced_and_different():
    made = {name: preset(name) for name in objectives.PRESETS}
    assert len({objective.hash for objective in made.values()}) == len(made)
    for name, data in objectives.PRESETS.items():
        assert data.title, name
        assert any(character.isdigit() for character in data.source), name
        assert "\n" not in data.source
        assert made[name].remarks() == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("grpo", {"kl_coef": 0.04, "clip_low": 0.2, "clip_high": 0.2, "aggregation": "sequence_mean", "ddof": 1}),
        ("r1", {"kl_coef": 0.001, "clip_high": 10.0}),
        ("dapo", {"clip_low": 0.2, "clip_high": 0.28, "zero_std": "resample", "kl_coef": 0.0}),
        ("trl", {"eps": 1e-4, "correction": "sequence_mask", "correction_max": 3.0, "aggregation": "token_mean"}),
        ("verl", {"eps": 1e-6, "dual_clip": 3.0, "aggregation": "token_mean", "correction": "off"}),
        ("rloo", {"kl_place": "reward", "kl_estimator": "k1", "kl_coef": 0.03}),
        ("scale_rl", {"zero_std": "drop"}),
    ],
)
def test_published_numbers(name, expected):
    fields = preset(name).to_dict()
    assert {field: fields[field] for field in expected} == expected
