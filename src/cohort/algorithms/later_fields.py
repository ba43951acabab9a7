"""Fields that came after hashes were published. At their default they stay out of what is hashed."""

from __future__ import annotations

from cohort.algorithms import terms
from cohort.algorithms.kinds import Choice, Number, Terms

LATER: dict[str, Choice | Number | Terms] = {
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
