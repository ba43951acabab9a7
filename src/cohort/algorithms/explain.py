"""An objective in words: its equation with every constant filled in, one line, one sentence per choice, a comparison.

Pure text: `loss` and `advantages` compute, and these words must say what they do.
"""

from __future__ import annotations

import functools

from cohort.algorithms.equation import capped_at, correction_bounds, equation
from cohort.algorithms.factors import TERM_WORDS, extra_words, filter_words
from cohort.algorithms.fields import FIELDS, LATER, SURROGATE_READS, Choice, Terms, short
from cohort.algorithms.notation import bounds, number
from cohort.algorithms.objective import Objective, inert_fields
from cohort.algorithms.presets import PRESETS, preset
from cohort.algorithms.terms import blend_words

__all__ = ["difference", "equation", "meaning", "one_line", "recommended", "sentences"]

_KL_GRADIENTS = {  # what an estimator's gradient pulls at, by how it is differentiated
    ("pathwise", "k2"): "Differentiated as it stands, k2 pulls with the gradient of KL(policy || reference).",
    ("pathwise", "k3"): "Differentiated as it stands, k3 pulls with the gradient of KL(reference || policy), the other "
    "KL.",
    ("weighted", "k1"): "Times the ratio, k1 pulls with the gradient of KL(policy || reference), noisily.",
    ("weighted", "k2"): "Times the ratio, k2 pulls with the gradient of KL(policy || reference) plus a bias of second "
    "order.",
    ("weighted", "k3"): "Times the ratio, k3 pulls with the gradient of KL(policy || reference), also after several "
    "updates.",
}


def one_line(objective: Objective, drawn: bool = True) -> str:
    """The nearest preset's name and the choices that matter, e.g. `DAPO: clipped token ratio 0.8..1.28, ..., no KL`.
    What is learnt from completions that are not `drawn` from the policy is no policy gradient.
    """
    o = objective
    delta, future, mask = o.off_policy_delta, o.future_kl_half_life, short("mask", o.mask)
    parts = (
        (True, _short_surrogate(o) if drawn else "likelihood weighted by advantages"),
        (True, _short_advantage(o)),
        (True, short("aggregation", o.aggregation)),
        (True, _short_kl(o)),
        (o.correction != "off", f"{o.correction.replace('_', ' ')} of the sampler mismatch in {correction_bounds(o)}"),
        (o.credit != "outcome", f"credit by {o.credit}"),
        (o.whiten_by == "token", "whitened over tokens"),
        (o.mask != "off", f"{mask} mask {number(o.mask_low)} down, {number(o.mask_high)} up"),
        (delta is not None, f"negative completions left out beyond {number(delta)} nats a token"),
        (bool(o.filters), f"filters of mismatch: {', '.join(map(filter_words, o.filters))}"),
        (o.focus != "all", f"{short('focus', o.focus)} by {number(o.focus_share)} of the tokens"),
        (o.entropy_target is not None, f"entropy held at {number(o.entropy_target)}"),
        (future is not None, f"weighted by the future, {number(o.future_kl_low)}..{number(o.future_kl_high)}"),
        *((True, extra_words(extra)) for extra in o.extras),
        (bool(o.blend), f"expert share {blend_words(o.blend)}"),
        (o.old != "recompute", short("old", o.old)),
        (o.entropy_coef != 0, f"entropy bonus {number(o.entropy_coef)}"),
        (o.teacher_coef != 0, f"teacher {number(o.teacher_coef)} x, {short('teacher_form', o.teacher_form)}"),
        (o.truncated == "mask", "truncated completions masked"),
    )
    return f"{_name(o)}: {', '.join(said for acts, said in parts if acts)}"


def sentences(objective: Objective) -> list[tuple[str, str]]:
    """Each choice that acts, as (`field=value`, one sentence on what it does); of later fields those that are set."""
    known = [name for name in FIELDS if name not in LATER or getattr(objective, name) != getattr(Objective, name)]
    said = {field: meaning(objective, field) for field in known}
    return [(f"{field}={getattr(objective, field)}", sentence) for field, sentence in said.items() if sentence]


def difference(a: Objective, b: Objective) -> list[tuple[str, object, object, str]]:
    """Where two objectives differ: (field, value in a, value in b, what going from a to b changes)."""
    return [
        (field, getattr(a, field), getattr(b, field), _consequence(a, b, field))
        for field in FIELDS
        if getattr(a, field) != getattr(b, field)
    ]


def meaning(o: Objective, name: str) -> str:
    """What the field `name` does in this objective; "" if it does nothing."""
    value, field = getattr(o, name), FIELDS[name]
    if name in inert_fields(o):
        return ""
    if name.startswith("kl_") and not o.kl_coef:
        return "There is no reference policy." if name == "kl_coef" else ""
    if name in ("clip_low", "clip_high"):
        return _clip_meaning(o, name == "clip_low", value)
    if isinstance(field, Choice):
        sentence = field.meanings[value]
        return _KL_GRADIENTS.get((value, o.kl_estimator), sentence) if name == "kl_gradient" else sentence
    if isinstance(field, Terms):
        return field.meaning.format(TERM_WORDS[name](value)) if value else ""
    if value is None or (name in ("entropy_coef", "teacher_coef", "teacher_discount") and not value):
        return ""
    sentence = field.meaning.format(number(value))
    if name == "entropy_coef":
        sentence += " keeps the policy random." if value > 0 else " makes it decided."
    return sentence


def recommended(mismatch: float) -> str:
    """What to set for a mean |log old policy - log sampler| of `mismatch` nats a token, in a sentence with its source.

    The order is that of SkyRL's documentation (a956457): completions by their geometric mean first, whose bounds do not
    depend on length, then a cap on tokens. Where numerical noise ends (0.001) and where much begins (0.05) is ours.
    """
    if mismatch < 1e-3:
        return "Nothing: the difference is that of two ways to compute one number"
    first = 'objective.filters = [["geometric", 0.99, 1.01]] (SkyRL\'s first step)'
    if mismatch < 0.05:
        return f"Set {first}"
    return (
        f'Set {first} with objective.correction = "token_truncate", correction_max = 2; where rollouts are old, '
        "objective.off_policy_delta = 0.5 (DeepSeek-V3.2, TRL) or the preset dppo_tv"
    )


def _consequence(a: Objective, b: Objective, field: str) -> str:
    before, after = getattr(a, field), getattr(b, field)
    if {before, after} == {"sequence_sum", "sequence_token_sum"}:
        return "Nothing: both weigh every token 1/B."
    if not meaning(a, field) and not meaning(b, field):
        return "Nothing: the field acts in neither objective."
    changed = _number_consequence(field, before, after)
    said = meaning(b, field) or "It no longer acts."
    return f"{changed} {said}".strip()


def _number_consequence(field: str, before: object, after: object) -> str:
    if not isinstance(before, float) or not isinstance(after, float):
        return ""
    if field in ("clip_low", "clip_high", "ratio_max", "dual_clip", "correction_max"):
        return "Wider." if after > before else "Tighter."
    if field == "kl_coef" and before and after:
        factor = number(after / before) if after > before else number(before / after)
        return f"{factor} times {'stronger' if after > before else 'weaker'}."
    return ""


def _clip_meaning(o: Objective, low: bool, value: float | None) -> str:
    if value is None:
        return f"There is no {'lower' if low else 'upper'} clip."
    if o.surrogate == "geometric":
        sign, moves = ("-" if low else "", "fall" if low else "rise")
        return f"A token's log-ratio may {moves} to {sign}{number(value)} before it is clipped."
    bound = 1 - value if low else 1 + value
    if bound <= 0:
        return f"The lower clip is at {number(bound)}; ratios are positive, so it never acts."
    if o.surrogate == "truncated":
        return f"The weight is at {'least' if low else 'most'} {number(bound)}."
    return f"A ratio may {'fall' if low else 'rise'} to {number(bound)} before its token stops pushing."


def _name(o: Objective) -> str:
    """The title of the nearest preset, with the fields that differ from it."""
    changes = {
        name: [field for field in FIELDS if getattr(known, field) != getattr(o, field)]
        for name, known in _presets().items()
    }
    nearest = min(changes, key=lambda name: len(changes[name]))
    title = PRESETS[nearest].title
    if not changes[nearest]:
        return title
    if len(changes[nearest]) > 3:
        return f"Custom (nearest {title}, {len(changes[nearest])} fields differ)"
    return f"{title} with {', '.join(f'{field}={_plain(getattr(o, field))}' for field in changes[nearest])}"


@functools.cache
def _presets() -> dict[str, Objective]:
    """The objective of every preset. To build one takes a millisecond, and a run names its own more than once."""
    return {name: preset(name) for name in PRESETS}


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return number(value) if isinstance(value, float) or value is None else str(value)


def _short_surrogate(o: Objective) -> str:
    reads = SURROGATE_READS[o.surrogate]
    level = short("ratio_level", o.ratio_level)
    pairs = (f"({', '.join(map(number, pair))})" for pair in (o.gamma_positive, o.gamma_negative))
    clips = f"{number(o.clip_low)} and {number(o.clip_high)}"
    whole = {
        "reinforce": "plain policy gradient",
        "gamma": f"full ratio weighted W^k exp(l (1 - W)), (k, l) = {' and '.join(pairs)}",
        "label_contrast": f"groups told apart by length-normalised scores / {number(o.contrast_temperature)}",
        "soft": f"softly gated {level} (temperatures {number(o.soft_positive)} and {number(o.soft_negative)})",
        "geometric": f"geometric mean of token ratios clipped in log space by {clips}",
    }
    if o.surrogate in whole:
        return whole[o.surrogate]
    text = f"{o.surrogate} {level}"
    if "positive_weight" in reads and o.positive_weight == "one":
        text = f"weight 1 where A > 0, {text}"
    if "clip_low" in reads:
        low = 0 if o.clip_low is None else max(1 - o.clip_low, 0)
        text += f" {bounds(low, capped_at(o.clip_high, o.ratio_max if o.surrogate == 'truncated' else None))}"
    if "dual_clip" in reads and o.dual_clip is not None:
        text += f", dual clip {number(o.dual_clip)}"
    if "ratio_max" in reads and o.surrogate != "truncated" and o.ratio_max is not None:
        text += f", ratio at most {number(o.ratio_max)}"
    return text


def _short_advantage(o: Objective) -> str:
    baseline, scale = short("baseline", o.baseline), short("scale", o.scale)
    if o.scale == "none":
        return f"{baseline}, no scaling"
    if o.scale.endswith("std"):
        of_what = "std of the batch's tokens" if o.baseline == "critic" else scale
        scale = f"{short('ddof', o.ddof)} {of_what}"
    text = f"{baseline} / {scale}" + (f" + {number(o.eps)}" if o.eps else "")
    return f"each reward {text}, then summed and whitened" if o.rewards == "normalise_then_sum" else text


def _short_kl(o: Objective) -> str:
    if not o.kl_coef:
        return "no KL"
    weighted = "ratio x " if o.kl_gradient == "weighted" and o.kl_place == "loss" else ""
    return f"KL {number(o.kl_coef)} x {weighted}{o.kl_estimator} in the {o.kl_place}"
