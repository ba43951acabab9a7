"""Which GRPO exactly: an `Objective` is the whole answer, as plain validated data.

    objective = objectives.preset("dapo", clip_high=0.3)
    advantages = objective.advantages(rewards)                       # [P, G] -> [P, G]
    loss = objectives.policy_loss(objective, logprobs=..., old_logprobs=..., mask=..., advantages=...)

A learner that splits its batch computes `token_weight` once from the whole batch and adds up
`(per_token_loss(rows) * token_weight[rows]).sum()` over any split into rows: the sum is `policy_loss`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cohort.algorithms import advantages as _advantages
from cohort.algorithms.policy import (
    kl_in_reward,
    loss_metrics,
    mask_truncated,
    merge_metrics,
    per_token_loss,
    policy_loss,
    token_weight,
)
from cohort.algorithms.presets import PRESETS, Preset
from cohort.algorithms.validation import check_combinations, check_values, inert_fields, nearest

__all__ = [
    "PRESETS",
    "Objective",
    "Preset",
    "kl_in_reward",
    "loss_metrics",
    "mask_truncated",
    "merge_metrics",
    "per_token_loss",
    "policy_loss",
    "preset",
    "token_weight",
]


@dataclass(frozen=True)
class Objective:
    """One member of the GRPO family. The defaults are plain GRPO as DeepSeekMath has it (`preset("grpo")`).

    Raises ValueError for a value or a combination that makes no sense, saying why. Warns about a field that was set and
    cannot act. Equal objectives have equal `hash`.
    """

    baseline: str = "group_mean"  # group_mean, leave_one_out, batch_mean, none, critic
    scale: str = "group_std"  # none, group_std, batch_std, centred_batch_std, leave_one_out_std, group_mean
    ddof: int = 1  # 0 population std, 1 sample std
    eps: float = 1e-6  # added to the scale
    zero_std: str = "zero"  # groups whose rewards are all equal: zero (keep), drop, resample (DAPO)
    rewards: str = "sum_then_normalise"  # or normalise_then_sum (GDPO)

    surrogate: str = "clipped"  # clipped, truncated (CISPO), soft (SAPO), geometric (GMPO), reinforce
    ratio_level: str = "token"  # token, sequence (GSPO), sequence_token (GSPO-token), sequence_product
    clip_low: float | None = 0.2  # offset below 1; in log space for geometric
    clip_high: float | None = 0.2  # offset above 1; in log space for geometric
    ratio_max: float | None = None  # a cap on the ratio itself
    dual_clip: float | None = None  # bound c > 1 for negative advantages
    soft_positive: float = 1.0  # SAPO's temperatures
    soft_negative: float = 1.05

    kl_coef: float = 0.04
    kl_estimator: str = "k3"  # k1, k2, k3
    kl_place: str = "loss"  # loss, reward
    kl_gradient: str = "pathwise"  # pathwise, weighted (ratio x estimator)

    aggregation: str = "sequence_mean"  # see token_weights
    correction: str = "off"  # see corrections; bounds on old policy / sampler
    correction_min: float | None = None
    correction_max: float | None = None
    truncated: str = "keep"  # completions cut off at the token limit: keep, mask (their loss, not their reward)
    entropy_coef: float = 0.0

    def __post_init__(self) -> None:
        for field, number in check_values(self).items():
            object.__setattr__(self, field, number)
        check_combinations(self)
        for remark in self.remarks():
            warnings.warn(remark, UserWarning, stacklevel=3)

    def remarks(self) -> list[str]:
        """Fields that are not at their default and cannot act here, one sentence each. Empty for every preset."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return [
            f"{field}={getattr(self, field)!r} has no effect: {reason}"
            for field, reason in inert_fields(self).items()
            if getattr(self, field) is not None and getattr(self, field) != defaults[field]
        ]

    def advantages(self, rewards: Tensor, weights: Sequence[float] | Tensor | None = None) -> Tensor:
        """Rewards [P, G] to advantages [P, G] in float64; NaN marks a missing reward and gets advantage 0.

        Rewards may also be [P, G, K], K components with `weights` [K]: added first, or normalised first (GDPO), as
        the field `rewards` says. `zero_std` does not act here: groups without signal get 0, dropping them is the
        caller's.

        Raises ValueError for a group of one with a group baseline or scale, and for baseline='critic' (use `gae`).
        """
        components = getattr(rewards, "ndim", 2) == 3
        if weights is not None and not components:
            raise ValueError("weights were given for rewards [P, G]; give rewards [P, G, K], one component per weight")
        if self.rewards == "normalise_then_sum":
            return _advantages.gdpo(
                rewards if components else rewards[..., None], weights=weights, ddof=self.ddof, eps=self.eps
            )
        total = _advantages.weighted_sum(rewards, weights) if components else rewards
        return _advantages.normalise(total, baseline=self.baseline, scale=self.scale, ddof=self.ddof, eps=self.eps)

    @property
    def needs_reference(self) -> bool:
        """Whether log-probs of the reference policy are needed at all, in the loss or in the reward."""
        return self.kl_coef != 0

    @property
    def trains_without_signal(self) -> bool:
        """Whether a completion with advantage 0 still has a gradient: from the KL in the loss, or the entropy bonus."""
        return (self.kl_coef != 0 and self.kl_place == "loss") or self.entropy_coef != 0

    def to_dict(self) -> dict[str, Any]:
        """Every field with its value, ready for JSON; `from_dict` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Objective:
        """The objective with these fields, the rest at their defaults. Raises ValueError for an unknown field."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in known:
                raise ValueError(f"{name!r} is not a field of an objective{nearest(name, known)}")
        return cls(**fields)

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the fields as JSON with sorted keys: the same for equal objectives on every machine."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def preset(name: str, **fields: Any) -> Objective:
    """The objective called `name` (a key of `PRESETS`), with any field of `Objective` changed. What the preset sets and
    can no longer act, such as a bound for a correction that is switched off, goes back to its default.

    Raises ValueError for an unknown name or field, with the nearest known one.
    """
    if name not in PRESETS:
        raise ValueError(f"{name!r} is not a preset{nearest(name, PRESETS)}")
    own = PRESETS[name].fields
    whole = {**own, **fields}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        switched_off = inert_fields(Objective.from_dict(whole)).keys() - inert_fields(Objective.from_dict(own)).keys()
    return Objective.from_dict({key: value for key, value in whole.items() if key in fields or key not in switched_off})
