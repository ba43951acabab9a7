"""The objective as a recipe writes it: a preset, and what differs from it. The maths is in `cohort.algorithms`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from cohort.settings.table import Table

__all__ = ["Objective"]

Preset = Literal[
    "grpo",
    "r1_zero",
    "r1",
    "dr_grpo",
    "dapo",
    "gspo",
    "gspo_token",
    "gmpo",
    "cispo",
    "sapo",
    "luspo",
    "lite_ppo",
    "scale_rl",
    "max_rl",
    "rloo",
    "reinforce",
    "reinforce_pp",
    "reinforce_pp_baseline",
    "ppo",
    "trl",
    "verl",
]
Off = Literal["off"]
Offset = Annotated[float, Field(ge=0)]
OffsetBelow = Annotated[float, Field(ge=0, le=1)]  # beyond 1 nothing is clipped (r1 has 10, by publication)
Bound = Annotated[float, Field(gt=0)]


# Keys of the table that are not fields of `algorithms.objectives.Objective`.
BESIDE = ("preset", "pass_at_k", "bypass")


class Objective(Table):
    """What is optimised. A field that is not set has the preset's value; "off" switches a bound off."""

    preset: Preset = Field(default="grpo", description="Published method to start from.")
    pass_at_k: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        description="Train on pass@k instead of pass@1: the advantages of Pass@k Training; rewards must be 0 or 1.",
    )
    bypass: bool | None = Field(
        default=None,
        description="Take the ratio against the sampler's own log-probs; when not given, only scale_rl does.",
    )
    baseline: Literal["group_mean", "leave_one_out", "batch_mean", "none", "critic"] | None = Field(
        default=None, description="What is subtracted from a reward."
    )
    scale: Literal["none", "group_std", "batch_std", "centred_batch_std", "leave_one_out_std", "group_mean"] | None = (
        Field(default=None, description="What the difference is divided by.")
    )
    ddof: Literal[0, 1] | None = Field(default=None, description="The std divides by G - ddof.")
    eps: float | None = Field(default=None, ge=0, description="Number added to the scale.")
    zero_std: Literal["zero", "drop", "resample"] | None = Field(
        default=None, description="What becomes of a group whose scores are all equal."
    )
    rewards: Literal["sum_then_normalise", "normalise_then_sum"] | None = Field(
        default=None, description="Order in which several rewards are added and normalised."
    )
    surrogate: Literal["clipped", "truncated", "soft", "geometric", "reinforce"] | None = Field(
        default=None, description="Form of the policy term."
    )
    ratio_level: Literal["token", "sequence", "sequence_token", "sequence_product"] | None = Field(
        default=None, description="What the probability ratio is taken over."
    )
    clip_low: OffsetBelow | Off | None = Field(default=None, description="The ratio is clipped below 1 - clip_low.")
    clip_high: Offset | Off | None = Field(default=None, description="The ratio is clipped above 1 + clip_high.")
    ratio_max: Bound | Off | None = Field(default=None, description="Cap on the ratio itself.")
    dual_clip: Bound | Off | None = Field(default=None, description="Bound on the ratio for negative advantages.")
    soft_positive: Bound | None = Field(default=None, description="SAPO's temperature for positive advantages.")
    soft_negative: Bound | None = Field(default=None, description="SAPO's temperature for negative advantages.")
    kl_coef: float | None = Field(default=None, ge=0, description="Weight of the KL term; 0 needs no reference policy.")
    kl_estimator: Literal["k1", "k2", "k3"] | None = Field(default=None, description="Estimator of the KL divergence.")
    kl_place: Literal["loss", "reward"] | None = Field(default=None, description="Where the KL term goes.")
    kl_gradient: Literal["pathwise", "weighted"] | None = Field(
        default=None, description="Gradient of a KL term in the loss: of the estimator, or of ratio x estimator."
    )
    aggregation: (
        Literal[
            "token_mean",
            "prompt_token_mean",
            "sequence_mean",
            "sequence_sum",
            "sequence_token_sum",
            "constant_length",
        ]
        | None
    ) = Field(default=None, description="How tokens are averaged into the loss.")
    correction: (
        Literal["off", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "geometric_mask"] | None
    ) = Field(default=None, description="Correction for sampler and learner probabilities that differ.")
    correction_min: Bound | Off | None = Field(default=None, description="Lower bound of the correction's ratio.")
    correction_max: Bound | Off | None = Field(default=None, description="Upper bound of the correction's ratio.")
    truncated: Literal["keep", "mask"] | None = Field(
        default=None, description="Whether completions cut at max_tokens are trained on."
    )
    entropy_coef: float | None = Field(default=None, description="Weight of the entropy bonus.")

    def fields(self) -> dict[str, Any]:
        """The fields that are set, as keyword arguments for `objectives.preset(self.preset, ...)`.

        A bound that is "off" in the recipe is None here; `correction` keeps its word.
        """
        set_here = {name: getattr(self, name) for name in type(self).model_fields if name not in BESIDE}
        return {
            name: None if value == "off" and name != "correction" else value
            for name, value in set_here.items()
            if value is not None
        }
