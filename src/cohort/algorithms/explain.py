"""An objective in words: its equation with every constant filled in, one line, one sentence per choice, a comparison.

Pure text. Nothing here computes; `policy` does, and these words must say what it does.
"""

from __future__ import annotations

import dataclasses

from cohort.algorithms.equation import correction_bounds, equation
from cohort.algorithms.meanings import consequence, meaning
from cohort.algorithms.numbers import number
from cohort.algorithms.objectives import PRESETS, Objective, preset

__all__ = ["difference", "equation", "one_line", "sentences"]

_SHORT_AGGREGATION = {
    "token_mean": "mean over all tokens of the batch",
    "prompt_token_mean": "mean over the tokens of each prompt",
    "sequence_mean": "mean over tokens, then over completions",
    "sequence_sum": "sum over tokens, mean over completions",
    "sequence_token_sum": "completions weighted by their length",
    "constant_length": "sum over tokens divided by a constant length",
}


def one_line(objective: Objective) -> str:
    """The nearest preset's name and the choices that matter, e.g. `DAPO: clipped token ratio 0.8..1.28, ..., no KL`."""
    o = objective
    parts = [_short_surrogate(o), _short_advantage(o), _SHORT_AGGREGATION[o.aggregation], _short_kl(o)]
    if o.correction != "off":
        parts.append(f"{o.correction.replace('_', ' ')} of the sampler mismatch in {correction_bounds(o)}")
    if o.entropy_coef:
        parts.append(f"entropy bonus {number(o.entropy_coef)}")
    if o.truncated == "mask":
        parts.append("truncated completions masked")
    return f"{_name(o)}: {', '.join(parts)}"


def sentences(objective: Objective) -> list[tuple[str, str]]:
    """Each choice that acts, as (`field=value`, one sentence on what it does)."""
    fields = [field.name for field in dataclasses.fields(objective)]
    said = [(field, meaning(objective, field)) for field in fields]
    return [(f"{field}={getattr(objective, field)}", sentence) for field, sentence in said if sentence]


def difference(a: Objective, b: Objective) -> list[tuple[str, object, object, str]]:
    """Where two objectives differ: (field, value in a, value in b, what going from a to b changes)."""
    return [
        (field.name, getattr(a, field.name), getattr(b, field.name), consequence(a, b, field.name))
        for field in dataclasses.fields(a)
        if getattr(a, field.name) != getattr(b, field.name)
    ]


def _name(o: Objective) -> str:
    """The title of the nearest preset, with the fields that differ from it."""
    changes = {name: [field for field, *_ in difference(preset(name), o)] for name in PRESETS}
    nearest = min(changes, key=lambda name: len(changes[name]))
    title = PRESETS[nearest].title
    if not changes[nearest]:
        return title
    if len(changes[nearest]) > 3:
        return f"Custom (nearest {title}, {len(changes[nearest])} fields differ)"
    return f"{title} with {', '.join(f'{field}={_plain(getattr(o, field))}' for field in changes[nearest])}"


def _plain(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)


def _short_surrogate(o: Objective) -> str:
    if o.surrogate == "reinforce":
        return "plain policy gradient"
    level = {
        "token": "token ratio",
        "sequence": "sequence ratio (length-normalised)",
        "sequence_token": "sequence ratio with token gradients",
        "sequence_product": "full sequence ratio",
    }[o.ratio_level]
    if o.surrogate == "soft":
        return f"softly gated {level} (temperatures {number(o.soft_positive)} and {number(o.soft_negative)})"
    if o.surrogate == "geometric":
        low, high = ("off" if c is None else number(c) for c in (o.clip_low, o.clip_high))
        return f"geometric mean of token ratios clipped in log space by {low} and {high}"
    low = "0" if o.clip_low is None else number(max(1 - o.clip_low, 0))
    caps = [] if o.clip_high is None else [1 + o.clip_high]
    if o.surrogate == "truncated":
        caps += [] if o.ratio_max is None else [o.ratio_max]
    text = f"{o.surrogate} {level} {low}..{number(min(caps)) if caps else '∞'}"
    if o.dual_clip is not None:
        text += f", dual clip {number(o.dual_clip)}"
    if o.surrogate == "clipped" and o.ratio_max is not None:
        text += f", ratio at most {number(o.ratio_max)}"
    return text


def _short_advantage(o: Objective) -> str:
    baseline = {"none": "no baseline", "leave_one_out": "leave-one-out mean", "critic": "critic (GAE)"}.get(
        o.baseline, o.baseline.replace("_", " ")
    )
    if o.scale == "none":
        return f"{baseline}, no scaling"
    kind = "sample" if o.ddof else "population"
    scale = {
        "group_std": f"{kind} std",
        "batch_std": f"{kind} std of the batch",
        "centred_batch_std": f"{kind} std of the batch's centred rewards",
        "leave_one_out_std": f"{kind} std of the others",
        "group_mean": "group mean",
    }[o.scale]
    if o.baseline == "critic":
        scale = f"{kind} std of the batch's tokens"
    text = f"{baseline} / {scale}" + (f" + {number(o.eps)}" if o.eps else "")
    return f"each reward {text}, then summed and whitened" if o.rewards == "normalise_then_sum" else text


def _short_kl(o: Objective) -> str:
    if not o.kl_coef:
        return "no KL"
    weighted = "ratio x " if o.kl_gradient == "weighted" and o.kl_place == "loss" else ""
    return f"KL {number(o.kl_coef)} x {weighted}{o.kl_estimator} in the {o.kl_place}"
