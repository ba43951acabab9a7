"""Every field of an objective: what it decides, which values it may hold, and what each of them does.

This is the only list of them. A new choice is one line here, its function in the table beside the other ones
(`losses.SURROGATES`, `token_weights.AGGREGATIONS`, `kl.ESTIMATORS` and so on) and its term in `equation`. Nothing here
imports torch, so that the objective table of a recipe is made from it.
"""

from __future__ import annotations

from cohort.algorithms import terms
from cohort.algorithms.kinds import Choice, Number, Terms, nearest

__all__ = ["FIELDS", "LATER", "SURROGATE_READS", "Choice", "Number", "Terms", "choices", "nearest", "short"]

GROUP_BASELINES = ("group_mean", "leave_one_out")  # these compare the completions of one prompt with each other,
GROUP_SCALES = ("group_std", "leave_one_out_std", "group_mean")  # and so do these: both need groups of two or more


FIELDS: dict[str, Choice | Number | Terms] = {
    "baseline": Choice(
        "What is subtracted from a reward.",
        {
            "group_mean": "Each reward is compared with the mean of its own group, itself included.",
            "leave_one_out": "Each reward is compared with the mean of the others in its group: unbiased, and G/(G-1) "
            "times larger than with the group mean.",
            "batch_mean": "Each reward is compared with the batch's mean, so an easy prompt's answers all look good "
            "and a hard one's all bad.",
            "none": "The reward itself is the advantage: unbiased, and noisy unless rewards average near 0.",
            "token_optimal": "Each token's reward-to-go is compared with its group's mean at that position, weighted "
            "by how much gradient noise each completion has gathered.",
            "critic": "A value model predicts each token's return, and GAE turns the surprises into advantages.",
        },
        {
            "leave_one_out": "leave-one-out mean",
            "none": "no baseline",
            "token_optimal": "optimal token baseline",
            "critic": "critic (GAE)",
        },
    ),
    "scale": Choice(
        "What the difference is divided by.",
        {
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
        {
            "group_std": "std",
            "batch_std": "std of the batch",
            "centred_batch_std": "std of the batch's centred rewards",
            "leave_one_out_std": "std of the others",
        },
    ),
    "ddof": Choice(
        "The std divides by G - ddof.",
        {0: "The std is the population std (divisor n).", 1: "The std is the sample std (divisor n - 1)."},
        {0: "population", 1: "sample"},
    ),
    "eps": Number(
        "Number added to the scale.",
        "{} is added to what advantages are divided by; groups without spread are decided by max == min.",
        at_least=0,
    ),
    "zero_std": Choice(
        "What becomes of a group whose scores are all equal.",
        {
            "zero": "A group whose rewards are all equal has advantage 0 and stays in the batch and in its divisors.",
            "drop": "A group whose accuracy is constant is dropped, and the batch gets smaller.",
            "resample": "A group whose accuracy is constant is dropped and another prompt is sampled, so the batch "
            "stays full.",
        },
    ),
    "rewards": Choice(
        "Order in which several rewards are added and normalised.",
        {
            "sum_then_normalise": "The rewards of a completion are added, then normalised in the group.",
            "normalise_then_sum": "Each reward is normalised in its group before they are added, so none drowns out "
            "the others.",
        },
    ),
    "surrogate": Choice(
        "Form of the policy term.",
        {
            "clipped": "A token stops pushing once its ratio has moved past the clip in the direction it was pushed.",
            "truncated": "The ratio is only a weight and is capped: every token keeps a gradient, none a large one.",
            "soft": "A smooth gate fades a token's gradient as its ratio leaves 1, sooner where A is negative.",
            "geometric": "The completion's ratio is the geometric mean of its tokens' clipped ratios: calm against "
            "outliers.",
            "reinforce": "The plain policy gradient, exact only for the first update on fresh samples.",
            "gamma": "The completion's full ratio is a weight that fades smoothly on both sides of 1 (VESPO).",
            "label_contrast": "A group is a classification: completions above the mean against the others, each "
            "pushed less the better it is told apart (REAL).",
        },
    ),
    "ratio_level": Choice(
        "What the probability ratio is taken over.",
        {
            "token": "Each token has its own ratio of new to old probability.",
            "sequence": "All tokens share the geometric mean of the completion's ratios, and are clipped together.",
            "sequence_token": "Tokens share the completion's ratio in value but keep their own gradients.",
            "sequence_product": "All tokens share the completion's full ratio, which leaves any clip soon in a long "
            "answer.",
        },
        {
            "token": "token ratio",
            "sequence": "sequence ratio (length-normalised)",
            "sequence_token": "sequence ratio with token gradients",
            "sequence_product": "full sequence ratio",
        },
    ),
    "clip_low": Number(
        "The ratio is clipped below 1 - clip_low.",
        "A ratio may fall to {} before its token stops pushing.",
        at_least=0,
        optional=True,
        at_most_in_recipes=1,  # beyond 1 nothing is clipped (r1 has 10, by publication)
    ),
    "clip_high": Number(
        "The ratio is clipped above 1 + clip_high.",
        "A ratio may rise to {} before its token stops pushing.",
        at_least=0,
        optional=True,
    ),
    "ratio_max": Number("Cap on the ratio itself.", "The ratio is capped at {}.", at_least=1, optional=True),
    "dual_clip": Number(
        "Bound on the ratio for negative advantages.",
        "A token with negative advantage pushes no more once its ratio exceeds {}.",
        above=1,
        optional=True,
    ),
    "soft_positive": Number(
        "SAPO's temperature for positive advantages.",
        "Temperature {} of the gate for positive advantages.",
        above=0,
    ),
    "soft_negative": Number(
        "SAPO's temperature for negative advantages.",
        "Temperature {} of the gate for other advantages.",
        above=0,
    ),
    "kl_coef": Number(
        "Weight of the KL term; 0 needs no reference policy.",
        "Each token pays {} times its KL estimate for leaving the reference policy.",
        at_least=0,
    ),
    "kl_estimator": Choice(
        "Estimator of the KL divergence.",
        {
            "k1": "k1 = u is unbiased, noisy and sometimes negative.",
            "k2": "k2 = u^2/2 is slightly biased in value and right in gradient.",
            "k3": "k3 = exp(-u) - 1 + u is unbiased in value and never negative.",
        },
    ),
    "kl_place": Choice(
        "Where the KL term goes.",
        {
            "loss": "The KL is a term of the loss, differentiated with it.",
            "reward": "The KL is subtracted from the reward, before the baseline, and has no gradient of its own.",
        },
    ),
    "kl_gradient": Choice(
        "Gradient of a KL term in the loss: of the estimator, or of ratio x estimator.",
        {
            "pathwise": "The estimator is differentiated as it stands.",
            "weighted": "The estimator times the ratio is differentiated.",
        },
    ),
    "aggregation": Choice(
        "How tokens are averaged into the loss.",
        {
            "token_mean": "Every token of the batch counts the same, so long completions count more than short ones.",
            "prompt_token_mean": "Every prompt counts the same, and every token of its completions too.",
            "sequence_mean": "Every completion counts the same, so a token of a long one counts less: long wrong "
            "answers are punished mildly.",
            "sequence_sum": "Every token counts 1/B whatever the lengths: a completion is one action.",
            "sequence_token_sum": "A completion's loss is multiplied by its length (the same weight as sequence_sum: "
            "1/B a token).",
            "constant_length": "Every token counts the same constant, whatever the lengths: no length bias, and the "
            "batch's tokens set the size of the step.",
        },
        {
            "token_mean": "mean over all tokens of the batch",
            "prompt_token_mean": "mean over the tokens of each prompt",
            "sequence_mean": "mean over tokens, then over completions",
            "sequence_sum": "sum over tokens, mean over completions",
            "sequence_token_sum": "completions weighted by their length",
            "constant_length": "sum over tokens divided by a constant length",
        },
    ),
    "correction": Choice(
        "Correction for sampler and learner probabilities that differ.",
        {
            "off": "Differences between the sampler's and the learner's probabilities are ignored.",
            "token_truncate": "Each token is reweighted by old policy / sampler, held inside the bounds.",
            "token_mask": "Each token is reweighted by old policy / sampler, and left out beyond the bounds.",
            "sequence_truncate": "Each completion is reweighted by its full ratio old policy / sampler, held inside "
            "the bounds.",
            "sequence_mask": "Each completion is reweighted by its full ratio old policy / sampler, and left out "
            "beyond the bounds.",
            "geometric_mask": "A completion whose mean mismatch is beyond the bounds is left out; the rest is "
            "reweighted by token.",
        },
    ),
    "correction_min": Number(
        "Lower bound of the correction's ratio.",
        "The lower bound on old policy / sampler is {}.",
        at_least=0,
        optional=True,
    ),
    "correction_max": Number(
        "Upper bound of the correction's ratio.",
        "The upper bound on old policy / sampler is {}.",
        above=0,
        optional=True,
    ),
    "truncated": Choice(
        "Whether completions cut at max_tokens are trained on.",
        {
            "keep": "A completion cut off at the token limit trains like any other.",
            "mask": "A completion cut off at the token limit does not train; its reward stays in the baseline.",
        },
    ),
    "entropy_coef": Number("Weight of the entropy bonus.", "An entropy bonus of {} a token"),
    # Those below came after hashes were published: at their default they stay out of what is hashed.
    "teacher_coef": Number(
        "Weight of what a teacher says of the student's samples; 0 needs no teacher.",
        "The teacher's signal counts {} times: what the student says and the teacher would not is pushed down.",
        at_least=0,
    ),
    "teacher_form": Choice(
        "How the teacher's signal of a token, its log-prob minus that of the old policy, becomes an advantage.",
        {
            "add": "The teacher's signal of a token is added to its advantage: the reverse KL by sampled token.",
            "reweight": "The teacher's signal, held inside 0.8..1.2, only scales what the reward gives (RLSD).",
            "position": "The teacher's signal is added, and counts more while little of a completion's signal is past "
            "(IW-OPD).",
        },
        {"add": "added", "reweight": "as a factor", "position": "added, the first tokens first"},
    ),
    "teacher_discount": Number(
        "With add, the discount of later tokens' signal (0: its own); with position, how much more first tokens count.",
        "The teacher's signal is spread over a completion's tokens with {}.",
        at_least=0,
        at_most_in_recipes=1,
    ),
    "mask": Choice(
        "Which tokens leave the policy term as moved too far: those that moved further in the direction of their push.",
        {
            "off": "No token leaves the policy term for having moved.",
            "ratio": "A token leaves the policy term once its ratio is past the bounds, whatever the surrogate's form.",
            "probability": "A token leaves the policy term once its probability has moved past the bounds (DPPO, TV).",
            "bernoulli_kl": "A token leaves the policy term once the KL of it against all others is past the bounds "
            "(DPPO, KL).",
            "probability_both": "A token leaves the policy term once its probability has moved past the bounds, with "
            "or against its push.",
        },
        {"off": "no mask", "bernoulli_kl": "binary KL", "probability_both": "probability, both ways"},
    ),
    "mask_low": Number(
        "How far a token may fall before the mask takes it.", "A token may fall by {}.", at_least=0, optional=True
    ),
    "mask_high": Number(
        "How far a token may rise before the mask takes it.", "A token may rise by {}.", at_least=0, optional=True
    ),
    "off_policy_delta": Number(
        "Mean fall in nats a token, from the sampler, beyond which a completion with A < 0 is left out.",
        "A completion with negative advantage is left out once its tokens have fallen by {} nats on average (OPSM).",
        optional=True,
    ),
    "filters": Terms(
        "What leaves the policy term where sampler and old policy disagree: a list of (measure, low, high).",
        "Left out where old policy / sampler is outside the bounds, whatever the correction: {}.",
        terms.filters,
        nested=True,
    ),
    "whiten_by": Choice(
        "What centred_batch_std is taken over.",
        {
            "completion": "The std of centred rewards is over completions, each counting once.",
            "token": "Centred rewards are whitened over tokens, so long completions count more; so is the mean.",
        },
    ),
    "credit": Choice(
        "What a completion is paid for.",
        {
            "outcome": "All tokens of a completion share what its reward gives.",
            "process": "Rewards that score steps give each token the steps that end at it or later.",
            "states": "Steps of a group that were taken in the same state are compared, too (GiGPO).",
        },
    ),
    "state_weight": Number(
        "With credit = states, the weight of the comparison by state.", "It counts {} times.", at_least=0
    ),
    "state_discount": Number(
        "With credit = states, the discount of a return by turn.", "A turn later counts {} times.", at_least=0
    ),
    "positive_weight": Choice(
        "The weight of tokens with A > 0 in the truncated surrogate.",
        {
            "ratio": "Tokens that are pushed up are weighted by their ratio, as those that are pushed down.",
            "one": "Tokens that are pushed up have weight 1, whatever their ratio (TOPR).",
        },
    ),
    "gamma_positive": Terms(
        "With gamma, k and lambda of the weight W^k exp(lambda (1 - W)) where A >= 0.",
        "Where A >= 0 the completion's ratio W weighs W^k exp(lambda (1 - W)) with k, lambda = {}.",
        terms.pair,
    ),
    "gamma_negative": Terms(
        "With gamma, k and lambda of the weight W^k exp(lambda (1 - W)) where A < 0.",
        "Where A < 0 the completion's ratio W weighs W^k exp(lambda (1 - W)) with k, lambda = {}.",
        terms.pair,
    ),
    "contrast_temperature": Number(
        "With label_contrast, the temperature of the scores.",
        "Scores of completions are divided by {}: no push is larger than 1 over it.",
        above=0,
    ),
    "future_kl_half_life": Number(
        "Tokens after which what follows counts half, where a token is weighted by how its future moved.",
        "A token counts more where what follows has become likelier, with a half-life of {} tokens (FIPO).",
        above=0,
        optional=True,
    ),
    "future_kl_low": Number("Least weight of a token by its future.", "The weight is at least {}.", above=0),
    "future_kl_high": Number("Largest weight of a token by its future.", "The weight is at most {}.", at_least=1),
    "future_kl_ratio_limit": Number(
        "Ratio beyond which a token with A < 0 is not weighted up.",
        "With A < 0 and a ratio above {} the weight is at most 1.",
        at_least=1,
    ),
    "focus": Choice(
        "Which tokens the policy term is of, by a statistic of the whole batch.",
        {
            "all": "The policy term is of all tokens.",
            "top_entropy": "The policy term is of the tokens with the highest entropy; the divisor stays that of all.",
            "low_covariance": "Tokens drawn from those whose log-prob and advantage vary most together leave the "
            "policy term (Clip-Cov).",
        },
        {"all": "all tokens", "top_entropy": "highest entropy", "low_covariance": "low covariance"},
    ),
    "focus_share": Number(
        "Share of tokens that stay, with top_entropy; that leave, with low_covariance.",
        "The share of tokens is {}.",
        above=0,
        optional=True,
    ),
    "focus_low": Number(
        "Covariance above which a token may leave.", "Tokens with a covariance above {} may leave.", optional=True
    ),
    "focus_high": Number(
        "Covariance below which a token may leave.", "Tokens with a covariance below {} may leave.", optional=True
    ),
    "entropy_target": Number(
        "Mean entropy that the bonus is steered to; entropy_coef is where its coefficient begins.",
        "The bonus acts after an update with a mean entropy of at most {} nats; its coefficient moves to hold it.",
        at_least=0,
        optional=True,
    ),
    "entropy_step": Number("How far the coefficient of the bonus moves.", "It moves by {} an update.", above=0),
    "entropy_min": Number("Least coefficient of the bonus.", "It is at least {}.", at_least=0),
    "entropy_max": Number("Largest coefficient of the bonus.", "It is at most {}.", above=0),
    "extras": Terms(
        "Further terms of the loss, each a mean over its own tokens: a list of (kind, tokens, coef, focus).",
        "Added to the loss, each as a mean over its own tokens: {}.",
        terms.extras,
        nested=True,
    ),
    "blend": Terms(
        "Share of expert rows against the policy's own, by step: (warm-up, decay, peak, valley).",
        "The policy's loss counts 1 - mu and the experts' mu: {} (CHORD).",
        terms.blend,
    ),
    "old": Choice(
        "What the ratio's denominator is.",
        {
            "recompute": "The old policy's log-probs are computed by the learner, before the update.",
            "sampler": "The sampler's own log-probs stand for the old policy's.",
            "interpolate": "The old policy's log-probs are read off between the sampler's and the policy's, by how old "
            "each token is.",
        },
        {"recompute": "old policy", "sampler": "ratio to the sampler", "interpolate": "interpolated old policy"},
    ),
}

LATER = tuple(FIELDS)[tuple(FIELDS).index("teacher_coef") :]

# The fields that each surrogate reads; the others of those named here cannot act beside it.
SURROGATE_READS: dict[str, tuple[str, ...]] = {
    "clipped": ("ratio_level", "clip_low", "clip_high", "ratio_max", "dual_clip"),
    "truncated": ("ratio_level", "clip_low", "clip_high", "ratio_max", "positive_weight"),
    "soft": ("ratio_level", "soft_positive", "soft_negative"),
    "geometric": ("ratio_level", "clip_low", "clip_high"),
    "reinforce": (),
    "gamma": ("gamma_positive", "gamma_negative"),
    "label_contrast": ("contrast_temperature",),
}


def choices(field: str) -> tuple[str, ...]:
    """The values of a field of names, in the order in which they are shown."""
    choice = FIELDS[field]
    assert isinstance(choice, Choice), f"{field} is a number"
    return tuple(str(value) for value in choice.meanings)


def short(field: str, value: str | int) -> str:
    """A choice in a few words, for a summary in one line."""
    choice = FIELDS[field]
    assert isinstance(choice, Choice), f"{field} is a number"
    return choice.short.get(value, str(value).replace("_", " "))
