"""The door to the objectives: which GRPO exactly runs, and its loss.

    objective = objectives.preset("dapo", clip_high=0.3)
    advantages = objective.advantages(rewards)                       # [P, G] -> [P, G]
    loss = objectives.policy_loss(objective, logprobs=..., old_logprobs=..., mask=..., advantages=...)

A learner that splits its batch computes `token_weight` and `batchwide` once from the whole batch and adds up
`(per_token_loss(rows, whole=batchwide.rows(rows)) * token_weight[rows]).sum()`, and `own_terms(rows, ...).sum()` where
the objective has terms with divisors of their own, over any split into rows: the sum is `policy_loss`.
"""

from cohort.algorithms.batchwide import Batchwide
from cohort.algorithms.entropy import EntropyController
from cohort.algorithms.loss import (
    batchwide,
    kl_in_reward,
    loss_metrics,
    mask_truncated,
    merge_metrics,
    own_terms,
    per_token_loss,
    policy_loss,
    term,
    token_weight,
)
from cohort.algorithms.objective import Objective
from cohort.algorithms.presets import PRESETS, Preset, preset

__all__ = [
    "PRESETS",
    "Batchwide",
    "EntropyController",
    "Objective",
    "Preset",
    "batchwide",
    "kl_in_reward",
    "loss_metrics",
    "mask_truncated",
    "merge_metrics",
    "own_terms",
    "per_token_loss",
    "policy_loss",
    "preset",
    "term",
    "token_weight",
]
