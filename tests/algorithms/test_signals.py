"""The later fields against sums written out here, value and gradient in float64: one entry a method.

Nothing below uses the package's helpers. The same table shows that any split into rows, padding and what stands outside
the mask change nothing.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from cohort.algorithms.objectives import PRESETS, batchwide, per_token_loss, policy_loss, preset, token_weight

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
    }


class Sums:
    """A batch as nested lists: `l[i][t]` are 0-dim tensors with a gradient, the rest are numbers."""

    def __init__(self, logprobs: torch.Tensor, given: dict[str, Any]):
        self.l = [[logprobs[i, t] for t in range(LENGTHS[i])] for i in ROWS]
        self.now, self.old, self.mu, self.v = (
            [given[name][i, : LENGTHS[i]].tolist() for i in ROWS]
            for name in ("logprobs", "old_logprobs", "sampler_logprobs", "versions")
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
}


def loss_of(objective, given, **changed):
    return policy_loss(objective, **{**given, **changed})


def test_every_later_preset_is_here():
    assert set(list(PRESETS)[21:]) <= set(CASES)


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
    whole = batchwide(objective, given["logprobs"], **needed)
    weight = token_weight(objective, given["mask"])
    for rows in ([0, 3, 6], [1], [2, 4, 5, 7]):
        piece = {k: v[rows] if isinstance(v, torch.Tensor) else v for k, v in given.items() if k != "logprobs"}
        part = per_token_loss(objective, logprobs[rows], **piece, whole=whole.rows(rows)) * weight[rows]
        part.sum().backward()
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
    ],
)  # fmt: skip
def test_the_worked_example(example, pad, objective, expected):
    more = {"sampler_logprobs": example.sampler_logprobs, "versions": pad([[3, 3, 4], [2, 2], [4] * 4, [1, 3, 5]])}
    assert example_loss(example, objective, **more, current_version=5) == pytest.approx(expected, abs=1.5e-9)


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
    args = {"logprobs": now, "old_logprobs": old, "mask": torch.ones(1, 3)}
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
    given = {k: v for k, v in inputs().items() if k != "ref_logprobs"}
    with pytest.raises(ValueError, match="pass whole=batchwide"):
        per_token_loss(preset("m2po"), **given)
