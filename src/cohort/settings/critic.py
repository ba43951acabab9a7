"""The value model of PPO."""

from __future__ import annotations

from pydantic import Field

from cohort.settings.table import Table

__all__ = ["Critic"]


class Critic(Table):
    """The value model of PPO (baseline = "critic")."""

    learning_rate: float | None = Field(
        default=None, ge=0, description="Learning rate; the optimizer's when not given."
    )
    gamma: float = Field(default=1.0, ge=0, le=1, description="Discount.")
    lam: float = Field(default=0.95, ge=0, le=1, description="GAE's lambda.")
    value_clip: float = Field(
        default=0.2, gt=0, description="How far values may move in one batch before the loss clips."
    )
