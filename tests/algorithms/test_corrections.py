"""Mismatch weights: the worked example, written out, and what may not move."""

from __future__ import annotations

import math

import pytest
import torch

from cohort.algorithms import corrections, explain
from cohort.algorithms.objectives import policy_loss, preset

W = [
    [1.010050167, 0.980198673, 1.822118800],
    [1, 1.030454534],
    [0.449328964, 1.051271096, 1.020201340, 0.990049834],
    [2.718281828, 1, 0.951229425],
]
PRODUCT = [1.803988415, 1.030454534, 0.477113916, 2.585709659]
GEOMETRIC = [1.217338194, 1.015113065, 0.831104284, 1.372544981]


def weight(example, kind, low=None, high=None):
    return corrections.weight(kind, example.old_logprobs, example.sampler_logprobs, example.mask, low, high)


def inside(example, pad, rows):
    return pad(rows).masked_fill(~example.mask, 1)


def copies(values):
    return [[value] * 4 for value in values]


@pytest.mark.parametrize(
    ("kind", "low", "high", "expected"),
    [
        ("token_truncate", None, None, W),
        ("token_truncate", None, 2.0, [[min(w, 2) for w in row] for row in W]),
        ("token_truncate", 0.5, 5.0, [[min(max(w, 0.5), 5) for w in row] for row in W]),
        ("token_mask", 0.5, 2.0, [[w if 0.5 <= w <= 2 else 0 for w in row] for row in W]),
        ("token_mask", 0.5, 5.0, [[w if w != 0.449328964 else 0 for w in row] for row in W]),  # 2.718 stays
        ("sequence_truncate", None, 2.0, copies([min(p, 2) for p in PRODUCT])),
        ("sequence_mask", None, 2.0, copies([p if p <= 2 else 0 for p in PRODUCT])),
        ("sequence_mask", 0.5, 3.0, copies([p if 0.5 <= p <= 3 else 0 for p in PRODUCT])),
        ("geometric_mask", 0.9, 1.3, [[w if 0.9 <= g <= 1.3 else 0 for w in row] for row, g in zip(W, GEOMETRIC)]),
    ],
)
def test_weights_of_the_worked_example(example, pad, kind, low, high, expected):
    torch.testing.assert_close(weight(example, kind, low, high), inside(example, pad, expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", corrections.KINDS)
def test_no_mismatch_is_a_no_op(example, kind):
    inputs = {n: getattr(example, n) for n in ("logprobs", "old_logprobs", "mask")} | {"advantages": example.A}
    corrected = preset("dapo", correction=kind, correction_min=0.999, correction_max=1.001)
    with_it = policy_loss(corrected, **inputs, sampler_logprobs=example.old_logprobs)
    assert with_it == policy_loss(preset("dapo"), **inputs)


def test_the_mask_keeps_the_divisor_and_spares_the_kl(example):
    inputs = {n: getattr(example, n) for n in ("logprobs", "old_logprobs", "mask", "ref_logprobs", "sampler_logprobs")}
    inputs["advantages"] = example.A
    objective = preset("grpo", correction="geometric_mask", correction_min=0.99, correction_max=1.001)
    everything_left_out = policy_loss(objective, **{**inputs, "sampler_logprobs": example.old_logprobs + 1})
    assert everything_left_out.item() == pytest.approx(0.04 * 0.025881664071, abs=1e-12)


def test_an_infinite_product_is_bounded_or_left_out(example):
    mask = torch.ones(1, 4, dtype=torch.bool)
    old, sampler = torch.zeros(1, 4), torch.full((1, 4), -100.0)
    assert corrections.weight("sequence_truncate", old, sampler, mask, None, 2.0).tolist() == [[2.0] * 4]
    for kind in ("token_mask", "sequence_mask", "geometric_mask"):
        assert corrections.weight(kind, old, sampler, mask, None, 2.0).tolist() == [[0.0] * 4]
    assert math.isfinite(corrections.weight("sequence_mask", sampler, old, mask, None, 2.0).sum())


def test_an_unknown_correction_is_refused(example):
    with pytest.raises(ValueError, match="tis"):
        weight(example, "tis")


def test_what_is_recommended_grows_with_the_mismatch():
    small, some, much = (explain.recommended(x) for x in (1e-4, 0.01, 0.3))
    assert small.startswith("Nothing")
    assert "geometric" in some
    assert "token_truncate" not in some
    assert "geometric" in much
    assert "token_truncate" in much
