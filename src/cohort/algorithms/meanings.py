"""One sentence on what each choice does, and on what changes when two objectives differ in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cohort.algorithms.numbers import number
from cohort.algorithms.validation import inert_fields

if TYPE_CHECKING:
    from cohort.algorithms.objectives import Objective

__all__ = ["consequence", "meaning"]

_CHOICES: dict[str, dict[str, str]] = {
    "baseline": {
        "group_mean": "Each reward is compared with the mean of its own group, itself included.",
        "leave_one_out": "Each reward is compared with the mean of the others in its group: unbiased, and G/(G-1) "
        "times larger than with the group mean.",
        "batch_mean": "Each reward is compared with the batch's mean, so an easy prompt's answers all look good and a "
        "hard one's all bad.",
        "none": "The reward itself is the advantage: unbiased, and noisy unless rewards average near 0.",
        "critic": "A value model predicts each token's return, and GAE turns the surprises into advantages.",
    },
    "scale": {
        "none": "Advantages keep the reward's own scale, so no prompt counts more for being easy or hard.",
        "group_std": "Division by the group's std gives very easy and very hard prompts more weight than their "
        "spread warrants.",
        "batch_std": "Division by the std of the whole batch's rewards: one scale for all prompts.",
        "centred_batch_std": "Division by the std of the batch's centred values: one scale for all prompts, near "
        "unit variance.",
        "leave_one_out_std": "Division by the std of the other rewards of the group; a lone odd one out is not "
        "divided.",
        "group_mean": "Division by the group's mean reward: the rarer success is, the more it counts (maximum "
        "likelihood).",
    },
    "zero_std": {
        "zero": "A group whose rewards are all equal has advantage 0 and stays in the batch and in its divisors.",
        "drop": "A group whose accuracy is constant is dropped, and the batch gets smaller.",
        "resample": "A group whose accuracy is constant is dropped and another prompt is sampled, so the batch "
        "stays full.",
    },
    "rewards": {
        "sum_then_normalise": "The rewards of a completion are added, then normalised in the group.",
        "normalise_then_sum": "Each reward is normalised in its group before they are added, so none drowns out the "
        "others.",
    },
    "surrogate": {
        "clipped": "A token stops pushing once its ratio has moved past the clip in the direction it was pushed.",
        "truncated": "The ratio is only a weight and is capped: every token keeps a gradient, none a large one.",
        "soft": "A smooth gate fades a token's gradient as its ratio leaves 1, sooner where A is negative.",
        "geometric": "The completion's ratio is the geometric mean of its tokens' clipped ratios: calm against "
        "outliers.",
        "reinforce": "The plain policy gradient, exact only for the first update on fresh samples.",
    },
    "ratio_level": {
        "token": "Each token has its own ratio of new to old probability.",
        "sequence": "All tokens share the geometric mean of the completion's ratios, and are clipped together.",
        "sequence_token": "Tokens share the completion's ratio in value but keep their own gradients.",
        "sequence_product": "All tokens share the completion's full ratio, which leaves any clip soon in a long "
        "answer.",
    },
    "kl_estimator": {
        "k1": "k1 = u is unbiased, noisy and sometimes negative.",
        "k2": "k2 = u^2/2 is slightly biased in value and right in gradient.",
        "k3": "k3 = exp(-u) - 1 + u is unbiased in value and never negative.",
    },
    "kl_place": {
        "loss": "The KL is a term of the loss, differentiated with it.",
        "reward": "The KL is subtracted from the reward, before the baseline, and has no gradient of its own.",
    },
    "aggregation": {
        "token_mean": "Every token of the batch counts the same, so long completions count more than short ones.",
        "prompt_token_mean": "Every prompt counts the same, and every token of its completions too.",
        "sequence_mean": "Every completion counts the same, so a token of a long one counts less: long wrong answers "
        "are punished mildly.",
        "sequence_sum": "Every token counts 1/B whatever the lengths: a completion is one action.",
        "sequence_token_sum": "A completion's loss is multiplied by its length (the same weight as sequence_sum: 1/B "
        "a token).",
        "constant_length": "Every token counts the same constant, whatever the lengths: no length bias, and the "
        "batch's tokens set the size of the step.",
    },
    "correction": {
        "off": "Differences between the sampler's and the learner's probabilities are ignored.",
        "token_truncate": "Each token is reweighted by old policy / sampler, held inside the bounds.",
        "token_mask": "Each token is reweighted by old policy / sampler, and left out beyond the bounds.",
        "sequence_truncate": "Each completion is reweighted by its full ratio old policy / sampler, held inside the "
        "bounds.",
        "sequence_mask": "Each completion is reweighted by its full ratio old policy / sampler, and left out beyond "
        "the bounds.",
        "geometric_mask": "A completion whose mean mismatch is beyond the bounds is left out; the rest is reweighted "
        "by token.",
    },
    "truncated": {
        "keep": "A completion cut off at the token limit trains like any other.",
        "mask": "A completion cut off at the token limit does not train; its reward stays in the baseline.",
    },
}

_KL_GRADIENTS = {
    ("pathwise", "k2"): "Differentiated as it stands, k2 pulls with the gradient of KL(policy || reference).",
    (
        "pathwise",
        "k3",
    ): "Differentiated as it stands, k3 pulls with the gradient of KL(reference || policy), the other KL.",
    ("weighted", "k1"): "Times the ratio, k1 pulls with the gradient of KL(policy || reference), noisily.",
    (
        "weighted",
        "k2",
    ): "Times the ratio, k2 pulls with the gradient of KL(policy || reference) plus a bias of second order.",
    (
        "weighted",
        "k3",
    ): "Times the ratio, k3 pulls with the gradient of KL(policy || reference), also after several updates.",
}


def meaning(o: Objective, field: str) -> str:
    """What `field` does in this objective; "" if it does nothing."""
    value = getattr(o, field)
    if field in inert_fields(o) or (value is None and field not in ("clip_low", "clip_high")):
        return ""
    if field.startswith("kl_") and not o.kl_coef:
        return "There is no reference policy." if field == "kl_coef" else ""
    if field == "kl_gradient":
        return _KL_GRADIENTS.get((o.kl_gradient, o.kl_estimator), "")
    if field in _CHOICES:
        return _CHOICES[field][value]
    return _number_meaning(o, field, value)


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


def _number_meaning(o: Objective, field: str, value: float | None) -> str:
    words = number(value)
    if field == "ddof":
        return "The std is the sample std (divisor n - 1)." if value else "The std is the population std (divisor n)."
    if field == "eps":
        return f"{words} is added to what advantages are divided by; groups without spread are decided by max == min."
    if field in ("clip_low", "clip_high"):
        return _clip_meaning(o, field, value)
    if field == "ratio_max":
        return f"The ratio is capped at {words}."
    if field == "dual_clip":
        return f"A token with negative advantage pushes no more once its ratio exceeds {words}."
    if field in ("soft_positive", "soft_negative"):
        return f"Temperature {words} of the gate for {'positive' if field == 'soft_positive' else 'other'} advantages."
    if field == "kl_coef":
        return f"Each token pays {words} times its KL estimate for leaving the reference policy."
    if field in ("correction_min", "correction_max"):
        return f"The {'lower' if field == 'correction_min' else 'upper'} bound on old policy / sampler is {words}."
    if not value:
        return ""
    return f"An entropy bonus of {words} a token {'keeps the policy random' if value > 0 else 'makes it decided'}."


def _clip_meaning(o: Objective, field: str, value: float | None) -> str:
    low = field == "clip_low"
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
