"""What an objective refuses, what it warns about, and that it is pure data with a stable hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings

import pytest

from cohort.algorithms.fields import LATER
from cohort.algorithms.objectives import PRESETS, Objective, preset

PINNED = "27cfedb52705b3be"
FIELDS = [
    "baseline",
    "scale",
    "ddof",
    "eps",
    "zero_std",
    "rewards",
    "surrogate",
    "ratio_level",
    "clip_low",
    "clip_high",
    "ratio_max",
    "dual_clip",
    "soft_positive",
    "soft_negative",
    "kl_coef",
    "kl_estimator",
    "kl_place",
    "kl_gradient",
    "aggregation",
    "correction",
    "correction_min",
    "correction_max",
    "truncated",
    "entropy_coef",
    *LATER,
]


def test_the_fields_are_those_of_the_design():
    assert [field.name for field in dataclasses.fields(Objective)] == FIELDS
    assert Objective() == preset("grpo")
    with pytest.raises(dataclasses.FrozenInstanceError):
        Objective().eps = 0.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"surrogate": "geometric", "ratio_level": "sequence_token"}, "geometric.*use ratio_level='token'"),
        ({"surrogate": "geometric", "ratio_level": "sequence_product"}, "geometric"),
        ({"kl_estimator": "k1"}, "k1.*zero in expectation"),
        ({"surrogate": "truncated", "clip_high": None}, "no upper bound.*ratio_max"),
        ({"baseline": "critic"}, "scale='group_std'.*critic.*centred_batch_std"),
        ({"baseline": "critic", "scale": "batch_std"}, "critic"),
        ({"rewards": "normalise_then_sum", "scale": "none"}, "GDPO"),
        ({"rewards": "normalise_then_sum", "baseline": "leave_one_out"}, "GDPO"),
        ({"correction": "token_truncate"}, "needs correction_max"),
        ({"correction": "token_truncate", "correction_min": 0.5}, "needs correction_max"),
        ({"correction": "sequence_mask"}, "needs correction_max"),
        ({"correction": "token_mask", "correction_min": 2.0, "correction_max": 5.0}, "exclude 1"),
        ({"correction": "token_mask", "correction_max": 0.9}, "exclude 1"),
        ({"mask": "probability", "mask_low": 0.2}, "two trust regions.*clip_low and clip_high to None"),
        ({"mask": "ratio", "clip_low": None, "clip_high": None}, "needs mask_low or mask_high"),
        ({"old": "sampler", "correction": "token_mask", "correction_max": 2.0}, "count twice"),
        ({"old": "sampler", "filters": [("token", 0.5, 2.0)]}, "filters cannot go with old='sampler'.*count twice"),
        ({"filters": [("tokn", 0.5, 2.0)]}, "filters.0.: 'tokn' is no measure; did you mean 'token'"),
        ({"filters": [("token", 1.5, 2.0)]}, "exclude 1"),
        ({"filters": [("token", "off", None)]}, "has no bound"),
        ({"filters": [("k3_mean", 0.1, 2.0)]}, "never negative"),
        ({"extras": [("kl", "policy", 0.1)]}, "'kl' is no kind of term"),
        ({"extras": [("jsd(0.5)", "policy", 0.1)]}, "over the vocabulary: a stage of kind distill"),
        ({"extras": [("nll", "polcy", 0.1)]}, "'polcy' are no tokens; did you mean 'policy'"),
        ({"extras": [("nll", "top_covariance", 0.1)]}, "with its share"),
        ({"extras": [("nll", "top_covariance(2)", 0.1)]}, "share of tokens above 0 and at most 1"),
        ({"extras": [("drift_square", "expert", 0.1)]}, "nobody sampled tokens of expert rows"),
        ({"extras": [("nll", "policy", -0.1)]}, "coef -0.1 must be at least 0"),
        ({"extras": [("nll", "policy", 0.1), ("nll", "policy", 0.2)]}, "extras.1.*count twice"),
        ({"extras": [("nll", "policy", 0.1, "sure")]}, "'sure' is no focus"),
        ({"blend": (0, 0, 0.5, 0.5)}, "no term is of them"),
        ({"blend": (0, 0, 1.5, 0.5), "extras": [("nll", "expert", 1)]}, "shares from 0 to 1"),
        (
            {"surrogate": "gamma", "correction": "sequence_mask", "correction_max": 2.0},
            "token_truncate, token_mask or off",
        ),
        ({"surrogate": "label_contrast", "off_policy_delta": 0.1}, "off_policy_delta cannot go with.*whole groups"),
        ({"future_kl_half_life": 8, "future_kl_low": 1.1}, "future_kl_low=1.1 must be at most 1"),
        ({"baseline": "token_optimal"}, "undivided: use scale='none'"),
        ({"whiten_by": "token"}, "scale='group_std' cannot act"),
        ({"credit": "states", "baseline": "critic", "scale": "none"}, "credit='states' compares steps"),
        ({"focus": "top_entropy"}, "needs focus_share.*the share that stays; 0.2"),
        ({"focus": "low_covariance", "focus_share": 2.0}, "needs focus_share.*the share that leaves"),
        ({"entropy_target": 0.2, "entropy_coef": 2.0}, "entropy_coef=2 must lie between"),
        ({"gamma_positive": (1,)}, "must be .k, lambda."),
        ({"filters": [("token", 0.5)]}, "must be .measure, low, high."),
        ({"filters": [("token", 0.5, True)]}, "True must be a finite number"),
    ],
)
def test_combinations_that_make_no_sense(fields, message):
    with pytest.raises(ValueError, match=message):
        Objective(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ddof": 2}, "ddof=2 must be 0"),
        ({"ddof": True}, "ddof=True"),
        ({"eps": -1e-6}, "eps=-1e-06 must be at least 0"),
        ({"eps": None}, "eps=None must be a finite number"),
        ({"clip_low": -0.1}, "clip_low=-0.1 must be at least 0, or None"),
        ({"clip_high": float("nan")}, "clip_high=nan must be a finite number or None"),
        ({"clip_high": "0.2"}, "clip_high='0.2'"),
        ({"dual_clip": 1.0}, "dual_clip=1.0 must be greater than 1"),
        ({"ratio_max": 0.5}, "ratio_max=0.5 must be at least 1"),
        ({"soft_positive": 0}, "soft_positive=0 must be greater than 0"),
        ({"kl_coef": -1}, "kl_coef=-1"),
        ({"entropy_coef": float("inf")}, "entropy_coef=inf"),
        ({"baseline": "group_man"}, "baseline='group_man'.*did you mean 'group_mean'"),
        ({"aggregation": "token-mean"}, "did you mean 'token_mean'"),
        ({"correction": None}, "correction=None is unknown.*token_truncate"),
        ({"kl_estimator": "k4"}, "kl_estimator='k4'"),
    ],
)
def test_values_out_of_range(fields, message):
    with pytest.raises(ValueError, match=message):
        Objective(**fields)


def test_unknown_names_get_a_suggestion():
    with pytest.raises(ValueError, match="'dapoo' is not a preset; did you mean 'dapo'"):
        preset("dapoo")
    with pytest.raises(ValueError, match="'clip_hi' is not a field of an objective; did you mean 'clip_high'"):
        preset("dapo", clip_hi=0.3)
    with pytest.raises(ValueError, match="'zzz' is not a preset; choose one of: grpo, "):
        preset("zzz")


@pytest.mark.parametrize(
    ("fields", "remark"),
    [
        ({"surrogate": "soft", "clip_high": 0.28}, "clip_high=0.28 has no effect: surrogate='soft' does not clip"),
        ({"surrogate": "reinforce", "ratio_level": "sequence"}, "ratio_level='sequence' has no effect"),
        ({"correction_max": 3.0}, "correction_max=3.0 has no effect"),
        ({"mask_low": 0.1}, "mask_low=0.1 has no effect: mask='off'"),
        ({"scale": "none", "eps": 0.1}, "eps=0.1 has no effect"),
        ({"kl_place": "reward", "kl_gradient": "weighted"}, "kl_gradient='weighted' has no effect"),
        ({"surrogate": "geometric", "dual_clip": 3.0}, "dual_clip=3.0 has no effect"),
        ({"soft_negative": 2.0}, "soft_negative=2.0 has no effect"),
    ],
)
def test_a_field_that_was_set_and_cannot_act_is_warned_about(fields, remark):
    with pytest.warns(UserWarning, match="has no effect") as caught:
        objective = Objective(**fields)
    assert [str(warning.message) for warning in caught] == objective.remarks()
    assert objective.remarks()[0].startswith(remark)


def test_no_warning_without_cause():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in PRESETS:
            preset(name)
        Objective(surrogate="soft")
        Objective(surrogate="reinforce", kl_estimator="k1", kl_coef=0.0)


def test_a_preset_does_not_warn_about_what_it_set_itself():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        off = preset("trl", correction="off")
        assert off.correction_max is None
        assert preset("dapo", surrogate="soft").dual_clip is None
    with pytest.warns(UserWarning, match="correction_max=4.0 has no effect"):
        asked_for = preset("trl", correction="off", correction_max=4.0)
    assert asked_for.correction_max == 4.0


def test_hash_and_round_trip():
    objective = preset("dapo", clip_high=0.3)
    assert Objective.from_dict(json.loads(json.dumps(objective.to_dict()))) == objective
    assert len(objective.hash) == 64
    assert objective.hash != preset("dapo").hash
    assert preset("r1", clip_low=10, clip_high=10).hash == preset("r1").hash  # 10 and 10.0 are one objective
    assert preset("dapo", kl_coef=-0.0).hash == preset("dapo").hash
    assert len({objective, preset("dapo", clip_high=0.3)}) == 1


def test_the_hash_of_plain_grpo_is_pinned():
    """Records hold this hash; a change of it makes every one of them unrecognisable."""
    assert preset("grpo").hash == "e4e27b62691c93de37aade6089e0b65aec6e92c5406a163a66cb2e9622b5939f"
    first = list(PRESETS)[:21]  # those that were there when hashes were published first
    assert hashlib.sha256("".join(preset(name).hash for name in first).encode()).hexdigest()[:16] == PINNED


def test_what_an_objective_needs():
    assert preset("grpo").needs_reference
    assert preset("rloo").needs_reference
    assert not preset("dapo").needs_reference
    assert preset("dapo", entropy_coef=0.1).trains_without_signal
