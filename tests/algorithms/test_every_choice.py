"""A choice that `fields` lists must be computed, checked, explained and written as an equation, each in its own way.

A choice that is listed and forgotten somewhere would raise, or would silently do what another one does.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from typing import Any

import pytest
import torch

from cohort.algorithms import equation as equations
from cohort.algorithms import explain, fields, losses, objectives
from cohort.algorithms.advantages import optimal_token_baseline
from cohort.algorithms.explain import meaning
from cohort.algorithms.fields import FIELDS, SURROGATE_READS, Choice, Number, Terms
from cohort.algorithms.objective import Objective
from cohort.settings.objective import with_fields
from cohort.settings.table import Table

CHOICES = {name: field for name, field in FIELDS.items() if isinstance(field, Choice)}
NUMBERS = {name: field for name, field in FIELDS.items() if isinstance(field, Number)}
TERMS = {name: field for name, field in FIELDS.items() if isinstance(field, Terms)}
ABOVE_ONE = ("ratio_max", "dual_clip", "correction_max", "future_kl_high", "future_kl_ratio_limit")
SOME_TERMS: dict[str, Any] = {
    "filters": (("token", 0.9, 1.03125), ("second_moment", None, 0.01)),
    "extras": (("drift_square", "positive", 1.03125), ("nll", ("top_covariance", 0.1), 0.2, "uncertain")),
    "blend": (2, 1.03125, 0.9, 0.5),
    "gamma_positive": (1.03125, 2),
    "gamma_negative": (2, 1.03125),
}
# Everything acts: a KL in the loss, a correction, a moved policy, a teacher.
ACTING: dict[str, Any] = {"kl_coef": 0.04, "correction": "token_mask", "correction_min": 0.9, "correction_max": 1.2,
                          "teacher_coef": 0.5, "teacher_discount": 0.5}  # fmt: skip
NO_CLIP = {"clip_low": None, "clip_high": None}
# What some choices need beside them to make sense.
NEEDS: dict[tuple[str, Any], dict[str, Any]] = {
    ("baseline", "critic"): {"scale": "none"},
    ("baseline", "token_optimal"): {"scale": "none"},
    **{("whiten_by", value): {"scale": "centred_batch_std"} for value in ("completion", "token")},
    ("surrogate", "truncated"): {"ratio_max": 1.05},
    ("kl_estimator", "k1"): {"kl_gradient": "weighted"},
    ("zero_std", "drop"): {"teacher_coef": 0.0},
    ("zero_std", "resample"): {"teacher_coef": 0.0},
    **{("mask", value): {**NO_CLIP, "mask_low": 0.06, "mask_high": 0.02}
       for value in ("ratio", "probability", "probability_both")},
    ("mask", "bernoulli_kl"): {**NO_CLIP, "mask_low": 0.01, "mask_high": 0.005},
    ("old", "sampler"): {"correction": "off"},
    ("surrogate", "label_contrast"): {"correction": "off"},
    **{("focus", value): {"focus_share": 0.4} for value in ("top_entropy", "low_covariance")},
    **{("positive_weight", value): {"surrogate": "truncated", "ratio_max": 1.05} for value in ("ratio", "one")},
}  # fmt: skip
# What a number needs beside it to act.
BESIDE: dict[str, dict[str, Any]] = {
    **{name: {**NO_CLIP, "mask": "probability"} for name in ("mask_low", "mask_high")},
    **{name: {"future_kl_half_life": 2.0} for name in ("future_kl_low", "future_kl_high", "future_kl_ratio_limit")},
    "state_weight": {"credit": "states"},
    "state_discount": {"credit": "states"},
    "focus_share": {"focus": "top_entropy"},
    **{name: {"focus": "low_covariance", "focus_share": 0.5} for name in ("focus_low", "focus_high")},
    **{name: {"entropy_target": 1.0} for name in ("entropy_step", "entropy_max")},
    "entropy_min": {"entropy_target": 1.0, "entropy_coef": 0.5},
    "blend": {"extras": (("nll", "expert", 1.0),)},
}
ELSEWHERE = {
    "zero_std",
    "credit",
}  # act where groups are chosen and turns compared, not in the advantages and not in the loss


def chosen(field: str, value: object) -> Objective:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Objective(**{**ACTING, field: value, **NEEDS.get((field, value), {})})


def changed(o: Objective, field: str, value: Any) -> Objective:
    return dataclasses.replace(o, **{**BESIDE.get(field, {}), field: value})


def outcome(o: Objective) -> list[float]:
    """What an objective makes of one batch, as numbers: advantages, loss, gradient, the KL in the reward, metrics."""
    generator = torch.Generator().manual_seed(0)
    old, moved, beside, apart, taught = torch.randn(5, 8, 5, dtype=torch.float64, generator=generator)
    old = -old.abs() - 0.2
    logprobs = (old + 0.3 * moved).requires_grad_()
    mask = torch.arange(5) < torch.tensor([3, 5, 1, 4, 2, 5, 4, 3])[:, None]
    rewards = torch.tensor(
        [[[1.0, 0.2], [0.0, 0.9], [0.5, 0.1], [0.0, 0.3]], [[0.0, 0.7], [1.0, 0.0], [0.2, 0.4], [1.0, 0.1]]]
    )
    if o.baseline == "critic":
        advantages = torch.ones(8, dtype=torch.float64)
    elif o.baseline == "token_optimal":
        group = torch.arange(8) // 4
        advantages = optimal_token_baseline(rewards.sum(-1).flatten(), mask, apart.square(), group)
    else:
        lengths = mask.sum(1).view(2, 4)
        advantages = o.advantages(rewards, weights=[1.0, 0.5], lengths=lengths).flatten()
    loss_mask = objectives.mask_truncated(o, mask, torch.arange(8) == 1)
    given: dict[str, Any]
    given = {"ref_logprobs": old + 0.2 * beside, "sampler_logprobs": old + 0.1 * apart, "entropy": old.square(),
             "teacher_logprobs": old + taught, "versions": torch.arange(8)[:, None].expand(8, 5) % 5,
             "current_version": 5}  # fmt: skip
    about: dict[str, Any] = {"group": torch.tensor([0] * 4 + [1] * 4), "rewards": rewards.sum(-1).flatten()}
    loss = objectives.policy_loss(
        o,
        logprobs=logprobs,
        old_logprobs=old,
        mask=loss_mask,
        advantages=advantages,
        max_tokens=9,
        step=1,
        expert_logprobs=-torch.ones(3, dtype=torch.float64),
        **about,
        **given,
    )
    (gradient,) = torch.autograd.grad(loss, logprobs)
    penalty = objectives.kl_in_reward(o, old, given["ref_logprobs"], mask)
    ref = given.pop("ref_logprobs")
    whole = objectives.batchwide(o, logprobs, old, loss_mask, advantages, **given, **about)
    given.pop("entropy")
    if o.old == "recompute":
        given.pop("sampler_logprobs")
    metrics = objectives.loss_metrics(o, logprobs, old, loss_mask, advantages, ref, whole=whole, **given)
    numbers = torch.cat([advantages.flatten(), loss.detach()[None], gradient.flatten(), penalty.flatten()])
    return [round(x, 12) for x in [*numbers.tolist(), *(float(value) for value in metrics.values())]]


@pytest.mark.parametrize("field", CHOICES)
def test_each_choice_computes_something_of_its_own(field):
    results = {value: outcome(chosen(field, value)) for value in CHOICES[field].meanings}
    if field in ELSEWHERE:
        return
    results.pop("sequence_token_sum", None)  # the same weights as sequence_sum, by its definition
    for value, result in results.items():
        assert all(x == x for x in result), f"{field}={value!r} gives NaN"
        same = [other for other, theirs in results.items() if theirs == result]
        assert same == [value], f"{field}: {same} compute the same"


@pytest.mark.parametrize("latex", [False, True])
@pytest.mark.parametrize("field", CHOICES)
def test_each_choice_has_an_equation_of_its_own(field, latex):
    written = {value: explain.equation(chosen(field, value), latex=latex) for value in CHOICES[field].meanings}
    assert len(set(written.values())) == len(written)


@pytest.mark.parametrize("field", CHOICES)
def test_each_choice_has_its_sentence_and_is_accepted_and_checked(field):
    said = {value: meaning(chosen(field, value), field) for value in CHOICES[field].meanings}
    assert len(set(said.values())) == len(said)
    assert all(sentence.endswith(".") for sentence in said.values())
    assert CHOICES[field].about.endswith(".")
    with pytest.raises(ValueError, match=f"{field}='nonesuch'"):
        changed(Objective(), field, "nonesuch")


@pytest.mark.parametrize("field", NUMBERS)
def test_each_number_has_a_sentence_a_range_and_a_place_in_the_equation(field):
    users = [name for name, reads in SURROGATE_READS.items() if field in reads] or ["clipped"]
    value = 1.03125 if field in ABOVE_ONE else 0.03125
    for surrogate in users:
        o = changed(chosen("surrogate", surrogate), field, value)
        assert meaning(o, field).endswith(".")
        assert any(number in explain.equation(o) for number in ("0.03125", "1.03125", "0.96875"))
    assert FIELDS[field].about.endswith(".")
    with pytest.raises(ValueError, match=f"{field}='much' must be a finite number"):
        changed(Objective(), field, "much")


@pytest.mark.parametrize("field", TERMS)
def test_each_list_of_terms_has_a_sentence_acts_and_is_in_the_equation(field):
    plain = chosen("correction", "off")
    if field.startswith("gamma"):
        plain = changed(plain, "surrogate", "gamma")
    given = changed(plain, field, SOME_TERMS[field])
    assert meaning(given, field).endswith(".")
    assert "1.03125" in explain.equation(given)
    assert explain.equation(given, latex=True).isascii()
    assert FIELDS[field].about.endswith(".")
    assert outcome(given) != outcome(plain)
    assert changed(given, field, json.loads(json.dumps(SOME_TERMS[field]))) == given
    assert given.hash != plain.hash
    with pytest.raises(ValueError, match=f"{field}='much' must be "):
        changed(Objective(), field, "much")


@pytest.mark.parametrize("surrogate", CHOICES["surrogate"].meanings)
def test_a_surrogate_reads_what_it_says_and_nothing_else(surrogate):
    """A field that it reads changes the loss, its gradient or its metrics; one that it does not changes nothing."""
    plain = chosen("surrogate", surrogate)
    other: dict[str, Any] = {
        "ratio_level": "sequence",
        "soft_positive": 3.0,
        "soft_negative": 3.0,
        "dual_clip": 1.01,
        "ratio_max": 1.02,
        "positive_weight": "one",
        "gamma_positive": (1.0, 1.0),
        "gamma_negative": (1.0, 1.0),
    }
    for field in {name for reads in SURROGATE_READS.values() for name in reads}:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            moved = changed(plain, field, other.get(field, 0.01))
        if field in SURROGATE_READS[surrogate]:
            assert outcome(moved) != outcome(plain), f"{surrogate} says that it reads {field}"
            assert not [remark for remark in moved.remarks() if remark.startswith(field)]
        elif field != "ratio_level":  # the ratio of the metrics has a level even where the loss has no ratio
            assert outcome(moved) == outcome(plain), f"{surrogate} does not say that it reads {field}"


# ---- a surrogate from outside: three places, and each one forgotten is noticed

PLACES = {
    "meaning": (CHOICES["surrogate"].meanings, "The square of the ratio counts."),
    "validation": (fields.SURROGATE_READS, ("ratio_level",)),
    "computation": (losses.SURROGATES, losses.Surrogate(lambda o, x: x.ratio(o).square() * x.advantages)),
    "equation": (
        equations.SURROGATES,
        lambda o, n: (n.pick("ρ²·A", "\\rho_{i,t}^2\\,A_i"), []),
    ),
}
DEMANDS = (
    lambda: test_each_choice_has_its_sentence_and_is_accepted_and_checked("surrogate"),
    lambda: test_each_choice_computes_something_of_its_own("surrogate"),
    lambda: test_each_choice_has_an_equation_of_its_own("surrogate", False),
    lambda: test_each_choice_has_an_equation_of_its_own("surrogate", True),
    lambda: test_a_surrogate_reads_what_it_says_and_nothing_else("squared"),
)


def register(monkeypatch, places):
    for place in places:
        table, entry = PLACES[place]
        monkeypatch.setitem(table, "squared", entry)


def test_a_surrogate_from_outside_is_one_of_the_family(monkeypatch):
    register(monkeypatch, PLACES)
    for demand in DEMANDS:
        demand()
    own = objectives.preset("dapo", surrogate="squared")
    assert explain.one_line(own).startswith("DAPO with surrogate=squared, clip_high=0.2: squared token ratio,")

    @with_fields
    class Table_(Table):  # noqa: N801
        """The recipe's table, made again now that there is one more surrogate."""

        preset: str = "grpo"

    assert Table_.model_validate({"surrogate": "squared"}).model_dump()["surrogate"] == "squared"


@pytest.mark.parametrize("forgotten", PLACES)
def test_a_place_of_a_surrogate_that_is_forgotten_is_noticed(monkeypatch, forgotten):
    register(monkeypatch, [place for place in PLACES if place != forgotten])

    def fails(demand) -> bool:
        try:
            demand()
        except (AssertionError, KeyError, ValueError):
            return True
        return False

    assert any(fails(demand) for demand in DEMANDS)
