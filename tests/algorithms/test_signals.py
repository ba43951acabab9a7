"""The later fields against sums written out here, value and gradient in float64: one entry a method.

Nothing below uses the package's helpers. The same table shows that any split into rows, padding and what stands outside
the mask change nothing.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from cohort.algorithms.objectives import (
    PRESETS,
    EntropyController,
    batchwide,
    own_terms,
    per_token_loss,
    policy_loss,
    preset,
    token_weight,
)

B, T, G = 8, 6, 4
LENGTHS = [3, 6, 1, 4, 5, 2, 6, 3]
REWARDS = [1.0, 0.0, 0.5, 0.0, 0.0, 1.0, 0.25, 1.0]
A = [1.2, -0.7, 0.4, -0.9, -0.6, 1.1, 0.0, 0.8]
N = sum(LENGTHS)
ROWS = range(B)
TOKENS = [(i, t) for i in ROWS for t in range(LENGTHS[i])]
NOW = 7
NO_CLIP = {"clip_low": None, "clip_high": None}
PLAIN: dict[str, Any] = {"kl_coef": 0.0, "aggregation": "token_mean", **NO_CLIP}


def inputs(seed: int = 0, moved: float = 0.5) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def noise():
        return torch.randn(B, T, dtype=torch.float64, generator=generator)

    old = -noise().abs() - 0.05
    return {
        "logprobs": (old + moved * noise()).clamp(max=-1e-3),
        "old_logprobs": old,
        "sampler_logprobs": (old + 0.3 * noise()).clamp(max=-1e-3),
        "ref_logprobs": old + 0.3 * noise(),
        "mask": torch.arange(T) < torch.tensor(LENGTHS)[:, None],
        "advantages": torch.tensor(A, dtype=torch.float64),
        "versions": torch.randint(3, NOW + 1, (B, T), generator=generator),
        "current_version": NOW,
        "entropy": entropies(),
    }


class Sums:
    """A batch as nested lists: `l[i][t]` are 0-dim tensors with a gradient, the rest are numbers."""

    def __init__(self, logprobs: torch.Tensor, given: dict[str, Any]):
        self.l = [[logprobs[i, t] for t in range(LENGTHS[i])] for i in ROWS]
        self.now, self.old, self.mu, self.v, self.ref = (
            [given[name][i, : LENGTHS[i]].tolist() for i in ROWS]
            for name in ("logprobs", "old_logprobs", "sampler_logprobs", "versions", "ref_logprobs")
        )

    def rho(self, i: int, t: int, against: list[list[float]] | None = None) -> torch.Tensor:
        return torch.exp(self.l[i][t] - (self.old if against is None else against)[i][t])

    def w(self, i: int) -> list[float]:
        return [math.exp(o - m) for o, m in zip(self.old[i], self.mu[i])]

    def clipped(self, i: int, t: int, low: float, high: float, against: list[list[float]] | None = None):
        ratio = self.rho(i, t, against)
        if A[i] > 0:
            return A[i] * (ratio if ratio.item() <= high else high)
        return A[i] * (ratio if ratio.item() >= low else low)


def total(terms) -> torch.Tensor:
    return sum(terms, torch.zeros((), dtype=torch.float64))


def probability_mask(s: Sums, i: int, t: int, base, low: float, high: float) -> bool:
    rise = math.exp(s.now[i][t]) - math.exp(base[i][t])
    return not ((A[i] > 0 and rise > high) or (A[i] < 0 and rise < -low))


def dppo_tv(s: Sums):
    kept = [(i, t) for i, t in TOKENS if probability_mask(s, i, t, s.mu, 0.15, 0.15)]
    return -total(min(math.exp(s.now[i][t] - s.mu[i][t]), 10.0) * A[i] * s.l[i][t] for i, t in kept) / N


def bernoulli(p: float, q: float) -> float:
    return q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))


def dppo_kl(s: Sums):
    kept = []
    for i, t in TOKENS:
        p, q = math.exp(s.now[i][t]), math.exp(s.mu[i][t])
        if not (bernoulli(p, q) > 0.05 and ((A[i] > 0 and p > q) or (A[i] < 0 and p < q))):
            kept.append((i, t))
    return -total(min(math.exp(s.now[i][t] - s.mu[i][t]), 10.0) * A[i] * s.l[i][t] for i, t in kept) / N


def both_ways(s: Sums):
    kept = [(i, t) for i, t in TOKENS if abs(math.exp(s.now[i][t]) - math.exp(s.old[i][t])) <= 0.1]
    return -total(A[i] * s.rho(i, t) for i, t in kept) / N


def unified(s: Sums):
    kept = [(i, t) for i, t in TOKENS if not ((A[i] > 0 and s.rho(i, t) > 1.3) or (A[i] < 0 and s.rho(i, t) < 0.9))]
    return -total(min(s.rho(i, t).item(), 5.0) * A[i] * s.l[i][t] for i, t in kept) / N


def opsm(s: Sums, delta: float = 0.5):
    result = []
    for i in ROWS:
        fallen = sum(m - now for m, now in zip(s.mu[i], s.now[i])) / LENGTHS[i]
        if A[i] >= 0 or fallen <= delta:
            result += [s.clipped(i, t, 0.8, 1.2) for t in range(LENGTHS[i])]
    return -total(result) / N


def m2po(s: Sums):
    squares = sorted(((s.old[i][t] - s.mu[i][t]) ** 2, i, t) for i, t in TOKENS)
    while squares and sum(square for square, *_ in squares) / len(squares) >= 0.04:
        squares.pop()
    return -total(s.clipped(i, t, 0.8, 1.2) for _, i, t in squares) / N


def filters(s: Sums):
    result = []
    for i in ROWS:
        w = s.w(i)
        geometric = math.prod(w) ** (1 / len(w))
        k3 = sum(x - 1 - math.log(x) for x in w) / len(w)
        if 0.9 <= geometric <= 1.3 and all(0.5 <= x <= 4 for x in w) and k3 <= 0.2 and math.prod(w) >= 0.3:
            result += [min(w[t], 1.2) * A[i] * s.rho(i, t) for t in range(LENGTHS[i]) if w[t] <= 1.25]
    return -total(result) / N


FILTERS = [("token", "off", 1.25), ("geometric", 0.9, 1.3), ("outlier", 0.5, 4), ("k3_mean", None, 0.2),
           ("sequence", 0.3, "off")]  # fmt: skip


def interpolated(s: Sums):
    old = [
        [
            m + (0.0 if v == NOW else max((NOW - 1 - v) / (NOW - v), 0.0)) * (now - m)
            for m, v, now in zip(s.mu[i], s.v[i], s.now[i])
        ]
        for i in ROWS
    ]
    return -total(s.clipped(i, t, 0.8, 1.2, old) for i, t in TOKENS) / N


def phi(W: float, k: float, lam: float) -> float:
    return W**k * math.exp(lam * (1 - W))


def prorl_v2(s: Sums):
    result = []
    for i, t in TOKENS:
        w = math.exp(s.old[i][t] - s.mu[i][t])
        result.append((w if 0.5 <= w <= 5 else 0.0) * s.clipped(i, t, 0.8, 1.27))
    k2 = total((s.l[i][t] - s.ref[i][t]) ** 2 / 2 for i, t in TOKENS)
    return (-total(result) + 1e-4 * k2) / N


def vespo(s: Sums):
    result = []
    for i in ROWS:
        W = math.exp(sum(now - old for now, old in zip(s.now[i], s.old[i])))
        weight = phi(W, 2, 3) if A[i] >= 0 else phi(W, 3, 2)
        result += [weight * A[i] * s.l[i][t] for t in range(LENGTHS[i])]
    return -total(result) / N


def vespo_corrected(s: Sums):
    result = []
    for i in ROWS:
        W = math.exp(sum(now - old for now, old in zip(s.now[i], s.old[i])))
        W *= math.prod(max(w if 0.7 <= w <= 1.5 else 0.0, 1e-8) for w in s.w(i))
        weight = phi(max(W, 1e-8), 1.5, 1) if A[i] >= 0 else phi(max(W, 1e-8), 2, 0.5)
        result += [weight * A[i] * s.l[i][t] for t in range(LENGTHS[i])]
    return -total(result) / N


def real(s: Sums, tau: float = 0.5):
    result = []
    for p in range(B // G):
        rows = range(p * G, (p + 1) * G)
        score = {i: total(s.l[i][t] - s.old[i][t] for t in range(LENGTHS[i])) / LENGTHS[i] for i in rows}
        up = total(torch.exp(-score[i] / tau) for i in rows if A[i] > 0)
        down = total(torch.exp(score[i] / tau) for i in rows if A[i] <= 0)
        result.append(torch.log(1 + up) + torch.log(1 + down))
    return total(result) / (B // G)


def topr(s: Sums):
    weight = {(i, t): 1.0 if A[i] > 0 else min(math.exp(s.now[i][t] - s.old[i][t]), 1.0) for i, t in TOKENS}
    return -total(weight[i, t] * A[i] * s.l[i][t] for i, t in TOKENS) / N


def dro(s: Sums):
    return -total(A[i] * s.l[i][t] - 0.05 * (s.l[i][t] - s.old[i][t]) ** 2 for i, t in TOKENS) / N


def fipo(s: Sums, half_life: float = 32.0):
    result = []
    for i, t in TOKENS:
        gamma = 2 ** (-1 / half_life)
        F = sum(gamma ** (k - t) * (s.now[i][k] - s.old[i][k]) for k in range(t, LENGTHS[i]))
        f = min(max(math.exp(F), 1.0), 1.2)
        if A[i] < 0 and math.exp(s.now[i][t] - s.old[i][t]) > 4:
            f = min(max(f, 0.8), 1.0)
        result.append(f * s.clipped(i, t, 0.8, 1.28))
    return -total(result) / N


def prime_rl(s: Sums):
    kept = [(i, t) for i, t in TOKENS if probability_mask(s, i, t, s.mu, 0.2, 0.2)]
    drift = total((s.l[i][t] - s.mu[i][t]) ** 2 for i, t in TOKENS) / N
    return -total(A[i] * s.rho(i, t, s.mu) for i, t in kept) / N + 0.001 * drift


EXPERT, OBSERVED = [-0.3, -1.1, -2.2], [-0.8, -0.1]


def echo(s: Sums):
    return -total(s.clipped(i, t, 0.8, 1.2) for i, t in TOKENS) / N + 0.1 * (0.9 / 2)


def chord(s: Sums):
    share = 0.9 * 4 / 10  # step 4 of the warm-up
    expert = -sum(math.exp(x) * (1 - math.exp(x)) * x for x in EXPERT) / len(EXPERT)
    return -(1 - share) * total(s.clipped(i, t, 0.8, 1.2) for i, t in TOKENS) / N + share * expert


def positive(s: Sums):
    rows = [i for i in ROWS if REWARDS[i] > 0]
    count = sum(LENGTHS[i] for i in rows)
    nll = -total(s.l[i][t] for i in rows for t in range(LENGTHS[i])) / count
    return -total(s.clipped(i, t, 0.8, 1.2) / (B * LENGTHS[i]) for i, t in TOKENS) + 0.3 * nll


def kl_cov(s: Sums, share: float = 0.2, coef: float = 0.7):
    mean_a, mean_l = (sum(x) / N for x in ([A[i] for i, _ in TOKENS], [s.now[i][t] for i, t in TOKENS]))
    ranked = sorted(TOKENS, key=lambda at: -(A[at[0]] - mean_a) * (s.now[at[0]][at[1]] - mean_l))
    chosen = ranked[: max(1, int(share * N))]
    drift = total(abs(s.l[i][t] - s.old[i][t]) for i, t in chosen)
    return (-total(A[i] * s.rho(i, t) for i, t in TOKENS) + coef * drift) / N


def or1(s: Sums):
    """A bonus of a fixed coefficient: who steers it changes the objective between updates."""
    bonus = 0.004 * sum(entropies()[i, t].item() for i, t in TOKENS)
    return -(total(s.clipped(i, t, 0.8, 1.2) for i, t in TOKENS) + bonus) / N


def entropies() -> torch.Tensor:
    found = torch.rand(B, T, dtype=torch.float64, generator=torch.Generator().manual_seed(11)) * 2
    found[1, :4] = 1.25  # ties
    return found


def top_entropy(s: Sums, share: float = 0.2):
    H = entropies()
    ranked = sorted(H[i, t].item() for i, t in TOKENS)
    at = (1 - share) * (N - 1)
    bound = ranked[int(at)] + (at - int(at)) * (ranked[int(at) + 1] - ranked[int(at)])
    return -total(s.clipped(i, t, 0.8, 1.28) for i, t in TOKENS if H[i, t] >= bound) / N


def covariances(s: Sums) -> dict[tuple[int, int], float]:
    mean_a, mean_l = (sum(x) / N for x in ([A[i] for i, _ in TOKENS], [s.now[i][t] for i, t in TOKENS]))
    return {(i, t): (A[i] - mean_a) * (s.now[i][t] - mean_l) for i, t in TOKENS}


def clip_cov(s: Sums):
    """All that are eligible leave, so that nothing hangs on the draw."""
    found = []
    for (i, t), cov in covariances(s).items():
        ratio = math.exp(s.now[i][t] - s.old[i][t])
        stopped = (A[i] > 0 and ratio > 1.2) or (A[i] < 0 and ratio < 0.8)
        if stopped or not 0.2 < cov < 5:
            found.append((i, t))
    return -total(s.clipped(i, t, 0.8, 1.2) for i, t in found) / N


# name: the objective, and its loss as sums. Presets stand under their own names.
CASES: dict[str, tuple[Any, Any]] = {
    "dppo_tv": (preset("dppo_tv"), dppo_tv),
    "dppo_kl": (preset("dppo_kl"), dppo_kl),
    "both ways": (
        preset("grpo", **PLAIN, mask="probability_both", mask_low=0.1, mask_high=0.1),
        both_ways,
    ),
    "unified mask": (preset("cispo", mask="ratio", mask_low=0.1, mask_high=0.3), unified),
    "opsm": (preset("opsm"), opsm),
    "m2po": (preset("m2po"), m2po),
    "filters": (
        preset("grpo", **PLAIN, filters=FILTERS, correction="token_truncate", correction_max=1.2),
        filters,
    ),
    "interpolated": (preset("lite_ppo", old="interpolate"), interpolated),
    "vespo": (preset("vespo"), vespo),
    "vespo, corrected": (
        preset("vespo", correction="token_mask", correction_min=0.7, correction_max=1.5, gamma_positive=(1.5, 1),
               gamma_negative=(2, 0.5)),
        vespo_corrected,
    ),
    "real": (preset("real"), real),
    "topr": (preset("topr"), topr),
    "dro": (preset("dro"), dro),
    "fipo": (preset("fipo"), fipo),
    "prorl_v2": (preset("prorl_v2"), prorl_v2),
    "prime_rl": (preset("prime_rl"), prime_rl),
    "echo": (preset("echo"), echo),
    "chord": (preset("chord"), chord),
    "top_entropy": (preset("top_entropy"), top_entropy),
    "clip_cov": (preset("clip_cov", focus_share=1.0, focus_low=0.2), clip_cov),
    "or1": (preset("or1", entropy_coef=0.004), or1),
    "positive": (preset("grpo", kl_coef=0.0, extras=[("nll", "positive", 0.3)]), positive),
    "kl_cov": (preset("kl_cov", extras=[("drift_absolute", "top_covariance(0.2)", 0.7)]), kl_cov),
}  # fmt: skip
BATCH: dict[str, Any] = {
    "rewards": torch.tensor(REWARDS, dtype=torch.float64),
    "group": torch.arange(B) // G,
}
BESIDE = {
    "expert_logprobs": torch.tensor(EXPERT, dtype=torch.float64),
    "observation_logprobs": torch.tensor(OBSERVED, dtype=torch.float64),
    "step": 4,
}


def loss_of(objective, given, **changed):
    return policy_loss(objective, **{**given, **BATCH, **BESIDE, **changed})


def test_every_later_preset_is_here():
    by_their_advantages = {"otb", "gigpo"}  # the loss is Lite-PPO's: test_credit.py
    assert set(list(PRESETS)[21:]) == (set(CASES) & set(PRESETS)) | by_their_advantages


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(name, seed):
    objective, formula = CASES[name]
    given = inputs(seed)
    ours, theirs = (given["logprobs"].clone().requires_grad_() for _ in range(2))
    loss, expected = loss_of(objective, given, logprobs=ours), formula(Sums(theirs, given))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    (gradient,), (wanted,) = torch.autograd.grad(loss, ours), torch.autograd.grad(expected, theirs)
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-9)
    assert wanted.abs().sum() > 0


@pytest.mark.parametrize("name", CASES)
def test_any_split_into_rows_and_any_padding_give_the_same(name):
    objective, given = CASES[name][0], inputs(2)
    logprobs = given["logprobs"].clone().requires_grad_()
    loss = loss_of(objective, given, logprobs=logprobs)
    (gradient,) = torch.autograd.grad(loss, logprobs)

    needed = {k: v for k, v in given.items() if k not in ("logprobs", "ref_logprobs")}
    weight = token_weight(objective, given["mask"])
    whole = batchwide(objective, given["logprobs"], **needed, **BATCH, weight=weight)
    for rows in ([0, 3, 6], [1], [2, 4, 5, 7]):
        piece: dict[str, Any] = {
            k: v[rows] if isinstance(v, torch.Tensor) else v for k, v in given.items() if k != "logprobs"
        }
        part = per_token_loss(objective, logprobs[rows], **piece, whole=whole.rows(rows)) * weight[rows]
        for name in ("ref_logprobs", "entropy"):
            piece.pop(name)
        own = own_terms(objective, logprobs[rows], **piece, whole=whole.rows(rows))
        ((1 - objective.expert_share(4)) * part + own).sum().backward()
    torch.testing.assert_close(logprobs.grad, gradient, rtol=0, atol=1e-12)

    def padded(x):
        if not isinstance(x, torch.Tensor) or x.ndim == 1:
            return x
        junk = {torch.bool: False, torch.int64: -9}.get(x.dtype, math.nan)
        return torch.nn.functional.pad(x.masked_fill(~given["mask"], junk), (2, 1), value=junk)

    wide = {k: padded(v) for k, v in given.items()}
    torch.testing.assert_close(loss_of(objective, wide), loss.detach(), rtol=0, atol=1e-12)


def test_the_formulas_tell_the_methods_apart():
    given = inputs()
    values = {name: formula(Sums(given["logprobs"], given)).item() for name, (_, formula) in CASES.items()}
    assert len({round(value, 9) for value in values.values()}) == len(values), values


# ---- the worked example, and limits in which a method becomes another


def example_loss(example, objective, **changed):
    given = {"logprobs": example.logprobs, "old_logprobs": example.old_logprobs, "mask": example.mask,
             "advantages": preset("grpo", eps=0.0).advantages(example.rewards)[0]}  # fmt: skip
    return policy_loss(objective, **{**given, **changed}).item()


def dapo(**fields):
    return preset("dapo", **{**(NO_CLIP if "mask" in fields else {}), **fields})


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (dapo(mask="probability", mask_low=0.2, mask_high=0.2), 0.383318752),
        (dapo(mask="bernoulli_kl", mask_low=0.01, mask_high=0.01), 0.332479322),
        (dapo(mask="probability", mask_low=0.05, mask_high=0.2, surrogate="truncated", ratio_max=3.0), -0.008319965),
        (dapo(off_policy_delta=0.1), -0.036044775),
        (dapo(filters=[("second_moment", None, 0.04)]), -0.037891667),
        (dapo(filters=[("geometric", 0.8, 1.25)]), -0.109232759),
        (dapo(filters=[("token", 0.5, 2), ("geometric", 0.8, 1.25)], correction="token_truncate", correction_max=2.0),
         -0.251893071),
        (dapo(old="interpolate"), 0.100319366),
        (dapo(focus="top_entropy", focus_share=0.2), -0.031577718),
        (dapo(clip_high=0.2, focus="low_covariance", focus_share=1.0, focus_low=0.3, focus_high=5.0), 0.188865256),
        (dapo(clip_high=0.2, focus="low_covariance", focus_share=1.0, focus_low=1.0, focus_high=5.0), 0.254144377),
        (dapo(entropy_coef=0.01), 0.237548827),
        (preset("vespo", correction="token_truncate", correction_max=3.0), -0.039864348),
        (preset("topr", ratio_level="sequence_product"), 0.014361407),
        (preset("dro", extras=[("drift_square", "policy", 0.5)]), 0.096044740),
        (preset("real"), 2.658876904),
        (dapo(future_kl_half_life=32, future_kl_ratio_limit=3), 0.249609094),
        (dapo(future_kl_half_life=32, future_kl_low=0.8), 0.305241429),
        (dapo(extras=[("nll", "positive", 0.1)]), 0.354440494),
        (dapo(extras=[("nll", "observation", 0.1)]), 0.342107161),
        (dapo(extras=[("nll", "expert", 1.0)], blend=(0, 0, 0.25, 0.25)), 0.415330370),
        (dapo(extras=[("nll", "expert", 1.0, "uncertain")], blend=(0, 0, 0.25, 0.25)), 0.220556489),
        (dapo(**NO_CLIP, extras=[("drift_absolute", ("top_covariance", 0.25), 1.0)]), 0.282289425),
    ],
)  # fmt: skip
def test_the_worked_example(example, pad, objective, expected):
    more = {"rewards": example.rewards[0], "group": torch.zeros(4)}
    more |= {"entropy": pad([[1.9, 0.4, 0.1], [2.3, 0.05], [0.02, 0.8, 1.2, 0.6], [1.1, 0.3, 0.7]])}
    more |= {"observation_logprobs": pad([[-0.9, -0.3, -1.7]], 3)[0]}
    more |= {"expert_logprobs": pad([[-0.4, -1.2, -0.1, -2.0]])[0]}
    more |= {"sampler_logprobs": example.sampler_logprobs, "versions": pad([[3, 3, 4], [2, 2], [4] * 4, [1, 3, 5]])}
    assert example_loss(example, objective, **more, current_version=5) == pytest.approx(expected, abs=1.5e-9)


def test_limits_in_which_one_is_another():
    given: dict[str, Any] = inputs(7)
    on_policy: dict[str, Any] = inputs(7)
    on_policy["logprobs"] = on_policy["old_logprobs"]
    reinforce = preset("grpo", **PLAIN, surrogate="reinforce")
    assert loss_of(preset("vespo"), on_policy) == loss_of(reinforce, on_policy)
    assert loss_of(preset("dro", extras=[("drift_square", "policy", 0.0)]), given) == loss_of(reinforce, given)
    up = {**given, "advantages": given["advantages"].abs()}
    assert loss_of(preset("topr"), up) == loss_of(reinforce, up)
    short = preset("fipo", future_kl_half_life=1e-9)
    small = {**given, "logprobs": given["old_logprobs"] + (given["logprobs"] - given["old_logprobs"]).clamp(max=1.3)}
    ratio = (small["logprobs"] - small["old_logprobs"]).exp().clamp(1, 1.2)
    A_t = given["advantages"][:, None] * ratio
    plain = {**small, "advantages": A_t}
    assert loss_of(short, small).item() == pytest.approx(
        loss_of(preset("fipo", future_kl_half_life=None), plain).item()
    )
    expert = [("nll", "expert", 2.0)]
    grpo, all_experts = (preset("lite_ppo", extras=expert, blend=(0, 0, mu, mu)) for mu in (0.0, 1.0))
    assert loss_of(grpo, given) == loss_of(preset("lite_ppo"), given)
    assert loss_of(all_experts, given).item() == pytest.approx(2 * 3.6 / 3)


def test_real_is_ln_of_the_counts_on_policy_and_turns_with_its_labels():
    given = inputs(8)
    given["logprobs"] = given["old_logprobs"]
    counts = [(sum(A[i] > 0 for i in rows), sum(A[i] <= 0 for i in rows)) for rows in (range(4), range(4, 8))]
    expected = sum(math.log(1 + up) + math.log(1 + down) for up, down in counts) / 2
    assert loss_of(preset("real"), given).item() == pytest.approx(expected, abs=1e-12)
    moved = 0.3 * torch.randn(B, T, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    signs = torch.tensor([1.0, -1, 1, -1, -1, 1, -1, 1])
    one = {**given, "logprobs": given["old_logprobs"] + moved, "advantages": signs}
    other = {**given, "logprobs": given["old_logprobs"] - moved, "advantages": -signs}
    assert loss_of(preset("real"), one).item() == pytest.approx(loss_of(preset("real"), other).item(), abs=1e-12)
    alike = {**one, "advantages": torch.tensor([1.0, 1, 1, 1, -1, -1, -1, -1])}
    assert loss_of(preset("real"), alike) == 0


def test_terms_without_tokens_add_nothing():
    given, nothing = inputs(9), torch.zeros(0, dtype=torch.float64)
    o = preset("lite_ppo", extras=[("nll", "expert", 1.0), ("nll", "observation", 1.0), ("nll", "positive", 1.0)])
    empty = {"expert_logprobs": nothing, "observation_logprobs": nothing, "rewards": torch.zeros(B)}
    assert loss_of(o, given, **empty) == loss_of(preset("lite_ppo"), given)
    for name in ("expert_logprobs", "observation_logprobs", "rewards"):
        with pytest.raises(ValueError, match=f"{name} is missing"):
            loss_of(o, given, **{name: None})
    with pytest.raises(ValueError, match="group is missing"):
        loss_of(preset("real"), given, group=None)


def test_ties_and_small_shares_still_touch_one_token():
    given = inputs(10)
    given["logprobs"] = torch.full_like(given["logprobs"], -1.0)  # every covariance is 0
    o = preset("grpo", **PLAIN, extras=[("nll", "top_covariance(0.001)", 1.0)])
    logprobs = given["logprobs"].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(o, given, logprobs=logprobs), logprobs)
    (plain,) = torch.autograd.grad(loss_of(preset("grpo", **PLAIN), given, logprobs=logprobs), logprobs)
    assert (gradient - plain).flatten().tolist() == pytest.approx([-1 / N] + [0.0] * (B * T - 1))


@pytest.mark.parametrize(
    "fields",
    [
        {"mask": "probability", "mask_low": 1.0, "mask_high": 1.0},
        {"mask": "bernoulli_kl", "mask_low": 1e9},
        {"mask": "ratio", "mask_low": 1.0},
        {"off_policy_delta": 1e9},
        {"filters": [("sequence", 0, 1e9), ("token", None, 1e9), ("second_moment", None, 1e9)]},
    ],
)
def test_wide_bounds_are_no_bounds(fields):
    given = inputs(3)
    assert loss_of(preset("grpo", **PLAIN, **fields), given) == loss_of(preset("grpo", **PLAIN), given)


def test_on_policy_no_mask_takes_a_token():
    given = inputs(4)
    given["logprobs"] = given["sampler_logprobs"] = given["old_logprobs"]
    for name in ("dppo_tv", "dppo_kl"):
        tight = preset(name, mask_low=0.0, mask_high=0.0)
        assert loss_of(tight, given) == loss_of(preset(name, mask="off"), given)


def test_both_forms_of_dppo_have_one_gradient_below_the_cap():
    given = inputs(5)
    masked = {**PLAIN, "mask": "probability", "mask_low": 0.1, "mask_high": 0.1}
    gradients = []
    for fields in ({}, {"surrogate": "truncated", "ratio_max": 1e9}):
        logprobs = given["logprobs"].clone().requires_grad_()
        loss_of(preset("grpo", **masked, **fields), given, logprobs=logprobs).backward()
        gradients.append(logprobs.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_a_certain_token_has_a_finite_binary_kl():
    """Probability 1 before, after, or both: the KL is infinite, or 0, and never NaN."""
    o = preset("grpo", **PLAIN, mask="bernoulli_kl", mask_low=0.1, mask_high=0.1)
    old = torch.tensor([[0.0, 0.0, -1.0]], dtype=torch.float64)
    now = torch.tensor([[0.0, -1.0, 0.0]], dtype=torch.float64)
    args: dict[str, Any] = {"logprobs": now, "old_logprobs": old, "mask": torch.ones(1, 3)}
    up = policy_loss(o, **args, advantages=torch.tensor([1.0]))
    assert up.item() == pytest.approx(-(1 + math.exp(-1)) / 3)  # the last one rose without end
    down = policy_loss(o, **args, advantages=torch.tensor([-1.0]))
    assert down.item() == pytest.approx((1 + math.e) / 3)  # the second one fell without end


def test_filters_of_batches_that_leave_nothing():
    given = inputs(6)
    for changed in ({"mask": torch.zeros(B, T, dtype=torch.bool)}, {}):
        logprobs = given["logprobs"].clone().requires_grad_()
        o = preset("grpo", **PLAIN, filters=[("second_moment", None, 1e-12), ("outlier", 0.999, 1.001)])
        loss_of(o, given, logprobs=logprobs, **changed).backward()
        assert (logprobs.grad == 0).all()


@pytest.mark.parametrize(
    ("missing", "field"),
    [
        ("sampler_logprobs", "sampler"),
        ("versions", "interpolate"),
        ("current_version", "interpolate"),
        ("old_logprobs", "recompute"),
    ],
)
def test_what_is_missing_is_named(missing, field):
    with pytest.raises(ValueError, match=f"{missing} is missing and old='{field}' needs it"):
        loss_of(preset("lite_ppo", old=field), inputs(), **{missing: None})


def test_what_is_decided_over_the_batch_is_asked_for():
    given = {k: v for k, v in inputs().items() if k not in ("ref_logprobs", "entropy")}
    with pytest.raises(ValueError, match="pass whole=batchwide"):
        per_token_loss(preset("m2po"), **given)


# ---- choices of tokens, and the entropy


def test_a_draw_is_as_large_as_its_share_and_depends_on_its_seed_alone():
    given = {k: v for k, v in inputs(12).items() if k not in ("logprobs", "ref_logprobs")}
    o = preset("clip_cov", clip_low=None, clip_high=None, focus_share=0.21, focus_low=None, focus_high=None)

    def left_out(seed):
        return ~batchwide(o, given["old_logprobs"], **given, seed=seed).keep

    assert left_out(0).sum() == int(0.21 * N)
    assert torch.equal(left_out(0), left_out(0))
    assert any(not torch.equal(left_out(0), left_out(seed)) for seed in range(1, 4))
    assert not (left_out(0) & ~given["mask"]).any()
    nobody = preset("clip_cov", focus_low=1e9, focus_high=None)
    assert batchwide(nobody, given["old_logprobs"], **given).keep.all()


def test_all_tokens_by_entropy_are_all_tokens_and_ties_stay():
    given = inputs(13)
    assert loss_of(preset("top_entropy", focus_share=1.0), given) == loss_of(preset("dapo"), given)
    flat = {**given, "entropy": torch.ones(B, T, dtype=torch.float64)}
    assert loss_of(preset("top_entropy"), flat) == loss_of(preset("dapo"), flat)
    empty = {**given, "mask": torch.zeros(B, T, dtype=torch.bool)}
    assert loss_of(preset("top_entropy"), empty) == 0
    with pytest.raises(ValueError, match="entropy is missing"):
        loss_of(preset("top_entropy"), given, entropy=None)


@pytest.mark.parametrize(
    ("step", "high", "applied", "after"),
    [
        (0.005, 1.0, [0, 0, 0.005, 0.010, 0], [0, 0.005, 0.010, 0.005, 0.010]),
        (0.0001, 0.005, [0, 0, 0.0001, 0.0002, 0], [0, 0.0001, 0.0002, 0.0001, 0.0002]),
    ],
)
def test_the_entropy_controller(step, high, applied, after):
    controller = EntropyController(0.0, 0.2, step, 0.0, high)
    seen, moved = [], []
    for H in (0.5, 0.15, 0.10, 0.25, 0.18):
        seen.append(controller.applied)
        moved.append(controller.update(H))
        controller_again = EntropyController(0.0, 0.2, step, 0.0, high)
        controller_again.restore(json.loads(json.dumps(controller.state())))
        assert vars(controller_again) == vars(controller)
    assert seen == pytest.approx(applied)
    assert moved == pytest.approx(after)
    for _ in range(1000):
        controller.update(0.2)  # at the target it still rises
    assert controller.coef == high
    with pytest.raises(ValueError, match="must be a finite number"):
        controller.update(math.nan)
    for wrong in ((0.5, 0.2, 0.1, 0.0, 0.4), (0.0, 0.2, 0.0)):
        with pytest.raises(ValueError, match="must"):
            EntropyController(*wrong)
