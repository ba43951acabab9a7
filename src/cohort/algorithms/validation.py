"""What an objective may hold, and which combinations make no sense. Used by `Objective` when it is made."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cohort.algorithms.objectives import Objective

__all__ = ["CHOICES", "NUMBERS", "check_combinations", "check_values", "inert_fields", "nearest"]

CHOICES: dict[str, tuple[str, ...]] = {
    "baseline": ("group_mean", "leave_one_out", "batch_mean", "none", "critic"),
    "scale": ("none", "group_std", "batch_std", "centred_batch_std", "leave_one_out_std", "group_mean"),
    "zero_std": ("zero", "drop", "resample"),
    "rewards": ("sum_then_normalise", "normalise_then_sum"),
    "surrogate": ("clipped", "truncated", "soft", "geometric", "reinforce"),
    "ratio_level": ("token", "sequence", "sequence_token", "sequence_product"),
    "kl_estimator": ("k1", "k2", "k3"),
    "kl_place": ("loss", "reward"),
    "kl_gradient": ("pathwise", "weighted"),
    "aggregation": (
        "token_mean",
        "prompt_token_mean",
        "sequence_mean",
        "sequence_sum",
        "sequence_token_sum",
        "constant_length",
    ),
    "correction": ("off", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "geometric_mask"),
    "truncated": ("keep", "mask"),
}

# field: (smallest, may it equal the smallest, may it be off)
NUMBERS: dict[str, tuple[float, bool, bool]] = {
    "eps": (0.0, True, False),
    "clip_low": (0.0, True, True),
    "clip_high": (0.0, True, True),
    "ratio_max": (1.0, True, True),
    "dual_clip": (1.0, False, True),
    "soft_positive": (0.0, False, False),
    "soft_negative": (0.0, False, False),
    "kl_coef": (0.0, True, False),
    "correction_min": (0.0, True, True),
    "correction_max": (0.0, False, True),
    "entropy_coef": (-math.inf, False, False),
}


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'dapo'? Choose one of ...`, without the question where nothing is near."""
    known = list(known)
    matches = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    question = f"did you mean {matches[0]!r}? " if matches else ""
    return f"; {question}Choose one of: {', '.join(known)}"


def check_values(objective: Objective) -> dict[str, float]:
    """Refuse a value outside its field's range; return the numbers as floats, so that 1 and 1.0 are one objective."""
    for field, choices in CHOICES.items():
        value = getattr(objective, field)
        if value not in choices:
            raise ValueError(f"{field}={value!r} is unknown{nearest(value, choices)}")
    if isinstance(objective.ddof, bool) or objective.ddof not in (0, 1):
        raise ValueError(f"ddof={objective.ddof!r} must be 0 (population std) or 1 (sample std)")
    numbers = {}
    for field, (smallest, included, optional) in NUMBERS.items():
        value = getattr(objective, field)
        if value is None and optional:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{field}={value!r} must be a finite number{' or None (off)' if optional else ''}")
        if value < smallest or (value == smallest and not included):
            bound = f"at least {smallest:g}" if included else f"greater than {smallest:g}"
            raise ValueError(f"{field}={value!r} must be {bound}{', or None (off)' if optional else ''}")
        numbers[field] = float(value) + 0.0  # + 0.0 turns -0.0 into 0.0
    return numbers


def check_combinations(o: Objective) -> None:
    """Refuse fields that contradict each other, with the reason and what to change."""
    if o.surrogate == "geometric" and o.ratio_level in ("sequence_token", "sequence_product"):
        raise ValueError(
            f"ratio_level={o.ratio_level!r} cannot go with surrogate='geometric': GMPO clips each token's ratio and "
            "takes "
            "their geometric mean itself; use ratio_level='token'"
        )
    if o.surrogate == "truncated" and o.clip_high is None and o.ratio_max is None:
        raise ValueError(
            "surrogate='truncated' has no upper bound: clip_high and ratio_max are both None, so nothing is truncated; "
            "set ratio_max (CISPO: 5.0)"
        )
    if o.kl_coef and o.kl_place == "loss" and o.kl_estimator == "k1" and o.kl_gradient == "pathwise":
        raise ValueError(
            "kl_estimator='k1' in the loss with kl_gradient='pathwise' has a gradient of zero in expectation: it "
            "adds noise "
            "and no pull towards the reference; use kl_estimator='k2' or 'k3', kl_gradient='weighted', or "
            "kl_place='reward'"
        )
    if o.baseline == "critic" and o.scale not in ("none", "centred_batch_std"):
        raise ValueError(
            f"scale={o.scale!r} cannot go with baseline='critic': a critic gives advantages per token, not rewards "
            "of a "
            "group; use scale='centred_batch_std' (whitening over the batch's tokens) or 'none'"
        )
    if o.rewards == "normalise_then_sum" and (o.baseline, o.scale) != ("group_mean", "group_std"):
        raise ValueError(
            f"rewards='normalise_then_sum' cannot go with baseline={o.baseline!r} and scale={o.scale!r}: GDPO is "
            "defined as "
            "group mean and group std of each reward; use those, or rewards='sum_then_normalise'"
        )
    _check_correction(o)


def _check_correction(o: Objective) -> None:
    if o.correction == "off":
        return
    if o.correction_max is None and (o.correction_min is None or o.correction.endswith("truncate")):
        raise ValueError(
            f"correction={o.correction!r} needs correction_max: without it a mismatch weight is unbounded; "
            "usual values are 2 for truncation and 3 to 5 for masks"
        )
    low = 0.0 if o.correction_min is None else o.correction_min
    high = math.inf if o.correction_max is None else o.correction_max
    if not low <= 1 <= high:
        raise ValueError(
            f"correction_min={o.correction_min} and correction_max={o.correction_max} exclude 1: tokens on which "
            "sampler and "
            "learner agree would be changed; choose bounds on old policy / sampler with min <= 1 <= max"
        )


def inert_fields(o: Objective) -> dict[str, str]:
    """Fields that cannot act in this objective, with the reason. Legal, and worth a warning if somebody set them."""
    inert: dict[str, str] = {}
    if o.scale == "none":
        inert |= dict.fromkeys(("ddof", "eps"), "scale='none' divides by nothing")
    if o.scale == "group_mean":
        inert["ddof"] = "scale='group_mean' takes no std"
    if o.surrogate in ("soft", "reinforce"):
        inert |= dict.fromkeys(("clip_low", "clip_high"), f"surrogate={o.surrogate!r} does not clip")
    if o.surrogate not in ("clipped", "truncated"):
        inert["ratio_max"] = f"surrogate={o.surrogate!r} does not cap the ratio"
    if o.surrogate != "clipped":
        inert["dual_clip"] = f"surrogate={o.surrogate!r} has no dual clip"
    if o.surrogate == "reinforce":
        inert["ratio_level"] = "surrogate='reinforce' uses no ratio"
    if o.surrogate != "soft":
        inert |= dict.fromkeys(("soft_positive", "soft_negative"), "only surrogate='soft' has temperatures")
    if o.kl_coef and o.kl_place == "reward":
        inert["kl_gradient"] = "a KL in the reward is a number without a gradient"
    if o.correction == "off":
        inert |= dict.fromkeys(("correction_min", "correction_max"), "correction='off' applies no bounds")
    return inert
