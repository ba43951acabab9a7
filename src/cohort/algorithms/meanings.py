"""One sentence on what each choice does, and on what changes when two objectives differ in it."""

from __future__ import annotations

from cohort.algorithms.fields import FIELDS, Choice
from cohort.algorithms.notation import number
from cohort.algorithms.objective import Objective, inert_fields

__all__ = ["consequence", "meaning"]

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
    if value is None or (name == "entropy_coef" and not value):
        return ""
    sentence = field.meaning.format(number(value))
    if name == "entropy_coef":
        sentence += " keeps the policy random." if value > 0 else " makes it decided."
    return sentence


def consequence(a: Objective, b: Objective, field: str) -> str:
    """What going from a's value of `field` to b's changes."""
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
