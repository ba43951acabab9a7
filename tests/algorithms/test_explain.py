"""The words must say what the numbers do: every constant of an objective appears, and nothing that does not act."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from cohort.algorithms import explain
from cohort.algorithms.fields import FIELDS, LATER, Choice
from cohort.algorithms.objectives import PRESETS, Objective, preset

NUMBERS: dict[str, Any] = {"prompts": 16, "group_size": 8, "max_tokens": 512, "updates": 4}


def test_one_line():
    assert explain.one_line(preset("dapo")) == (
        "DAPO: clipped token ratio 0.8..1.28, group mean / sample std + 1e-6, mean over all tokens of the batch, no KL"
    )
    changed = explain.one_line(preset("dapo", clip_high=0.3))
    assert changed.startswith("DAPO with clip_high=0.3: clipped token ratio 0.8..1.3,")
    far = preset("dapo", clip_high=0.3, clip_low=0.1, kl_coef=0.5, ddof=0, entropy_coef=0.01)
    assert explain.one_line(far).startswith("Custom (nearest DAPO, 5 fields differ)")


def test_equation_of_grpo():
    assert explain.equation(preset("grpo"), **{**NUMBERS, "updates": 1}).splitlines() == [
        "J(θ) = 1/128 · Σ_i 1/L_i · Σ_t [ min(ρ·A, clip(ρ, 0.8, 1.2)·A) − 0.04·k3 ]",  # noqa: RUF001
        "ρ    = π_θ(o_t) / π_old(o_t), per token",  # noqa: RUF001
        "A    = (r − mean_group(r)) / (std_group(r) + 1e-6)",  # noqa: RUF001
        "k3   = exp(−u) − 1 + u,  u = log π_θ(o_t) − log π_ref(o_t)",  # noqa: RUF001
        "B    = P·G = 16·8 = 128",
        "std: sample, divisor G−1 = 7",  # noqa: RUF001
        "groups whose rewards are all equal: advantage exactly 0, kept in the divisor",
        "optimizer updates per batch: 1, so π_old = π_θ: the ratio is 1 and no clip acts",
    ]


@pytest.mark.parametrize(
    ("objective", "pieces"),
    [
        (preset("dr_grpo"), ["1/(128·512)"]),
        (preset("gspo"), ["clip(s, 0.9997, 1.0004)", "exp(1/L_i"]),
        (preset("gspo_token"), ["clip(s_t, 0.9997, 1.0004)", "sg[s]"]),
        (preset("gmpo"), ["A·g", "0.4) where A ≥ 0"]),
        (preset("cispo"), ["sg[min(ρ, 5)]·A·log π_θ"]),  # noqa: RUF001
        (preset("sapo"), ["(4/τ)", "1 where A > 0, else 1.05"]),
        (preset("luspo"), ["L_i · 1/L_i"]),
        (preset("scale_rl"), ["1/P · Σ_p 1/N_p", "at most 16", "std_batch(r − baseline)", "dropped", "divisor B−1"]),  # noqa: RUF001
        (preset("rloo"), ["score − 0.03·Σ_t k1", "mean_others(r)"]),  # noqa: RUF001
        (preset("ppo"), ["GAE", "sqrt(var + 1e-8)", "less 0.05 k1 a token"]),
        (preset("verl"), ["3·A) where A < 0"]),
        (preset("trl"), ["outside 0..3", "1e-4"]),
        (preset("dapo", truncated="mask", entropy_coef=0.01), ["+ 0.01·H", "cut off", "other prompts"]),
        (preset("grpo", kl_gradient="weighted"), ["0.04·ρ·k3"]),  # noqa: RUF001
        (preset("grpo", rewards="normalise_then_sum"), ["each reward normalised so"]),
        (preset("dapo", ratio_max=4.0), ["min(min(ρ, 4)·A"]),  # noqa: RUF001
        (preset("grpo", ddof=0), ["population, divisor G = 8"]),
    ],
)
def test_equations_hold_their_constants(objective, pieces):
    text = explain.equation(objective, **NUMBERS)
    for piece in pieces:
        assert piece in text


@pytest.mark.parametrize("name", PRESETS)
def test_without_numbers_letters_stay(name):
    text = explain.equation(preset(name))
    assert "None" not in text
    assert "128" not in text


@pytest.mark.parametrize("name", PRESETS)
def test_latex_is_balanced_and_ascii(name):
    kind = "token_mask" if name == "vespo" else "geometric_mask" if name not in ("real",) else "off"
    corrected = preset(name, old="recompute", correction=kind, correction_min=0.9, correction_max=1.1)
    for objective in (preset(name), corrected):
        text = explain.equation(objective, **NUMBERS, latex=True)
        assert text.isascii()
        assert text.count("{") == text.count("}")
        assert text.count("\\begin{") == text.count("\\end{")
        outside_text = re.sub(r"\\text\{[^}]*\}", "", text)
        assert not re.search(r"\de-?\d", outside_text)  # powers of ten are set as such
        for inside in re.findall(r"\\text\{([^}]*)\}", text):
            assert not set("_^\\&%") & set(inside)


def test_every_choice_has_a_sentence_in_both_directions():
    base = {"kl_coef": 0.04, "correction": "token_mask", "correction_max": 2.0}
    for field, choice in FIELDS.items():
        for value in choice.meanings if isinstance(choice, Choice) else ():
            fields = {**base, field: value}
            if value == "truncated":
                fields["ratio_max"] = 5.0
            if value in ("critic", "token_optimal"):
                fields["scale"] = "none"
            if field == "whiten_by":
                fields["scale"] = "centred_batch_std"
            if value == "k1":
                fields["kl_place"] = "reward"
            if field == "teacher_form":
                fields |= {"teacher_coef": 1.0, "teacher_discount": 0.5}
            if value == "label_contrast":
                fields |= {"correction": "off", "correction_max": None}
            if field == "focus":
                fields |= {"focus_share": 0.5}
            if field == "positive_weight":
                fields |= {"surrogate": "truncated", "ratio_max": 5.0}
            if field == "mask":
                fields |= {"mask_low": 0.1, "clip_low": None, "clip_high": None}
            if value == "sampler":
                fields |= {"correction": "off", "correction_max": None}
            if field in LATER and value == getattr(Objective, field):
                continue  # one that is not set is not spoken of
            said = dict(explain.sentences(Objective(**fields)) if value != "off" else explain.sentences(Objective()))  # type: ignore[arg-type]
            if not (field == "kl_gradient" and fields.get("kl_place") == "reward"):
                assert said[f"{field}={value}"].endswith(".")


def test_sentences_leave_out_what_does_not_act():
    fields = {choice.split("=")[0] for choice, _ in explain.sentences(preset("rloo"))}
    assert {"baseline", "kl_coef", "kl_place", "surrogate"} <= fields
    assert not fields & {"clip_low", "ratio_level", "ddof", "eps", "kl_gradient", "soft_positive", "correction_max"}
    without_kl = {choice.split("=")[0] for choice, _ in explain.sentences(preset("dapo"))}
    assert not without_kl & {"kl_estimator", "kl_place", "kl_gradient", "entropy_coef"}


def test_difference_lists_exactly_the_fields_that_differ():
    for name in PRESETS:
        a, b = preset("grpo"), preset(name)
        differ = explain.difference(a, b)
        changed = {f.name for f in dataclasses.fields(a) if getattr(a, f.name) != getattr(b, f.name)}
        assert {field for field, *_ in differ} == changed == set(PRESETS[name].fields) & changed
        for field, before, after, consequence in differ:
            assert (before, after) == (getattr(a, field), getattr(b, field))
            assert consequence.endswith(".")


def test_consequences():
    said = {field: consequence for field, _, _, consequence in explain.difference(preset("grpo"), preset("r1"))}
    assert said["kl_coef"].startswith("40 times weaker.")
    assert said["clip_high"].startswith("Wider. A ratio may rise to 11")
    assert "never acts" in said["clip_low"]
    same = explain.difference(preset("rloo"), preset("rloo", aggregation="sequence_token_sum"))
    assert same[0][3].startswith("Nothing")
