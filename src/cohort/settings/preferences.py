"""Settings of stages that train a reward model."""

from __future__ import annotations

from pydantic import Field

from cohort.settings.table import PROMPTS, Table

__all__ = ["Preferences"]


class Preferences(Table):
    """Settings of stages that train a reward model (kind = "reward_model")."""

    pairs_per_step: int = Field(default=64, ge=1, le=PROMPTS, description="Preference pairs of one training step.")
    centring: float = Field(
        default=0.01, ge=0, description="Weight of the term that keeps scores around 0; with 0 only differences count."
    )
