"""Settings of supervised stages."""

from __future__ import annotations

from pydantic import Field

from cohort.settings.table import PROMPTS, Table

__all__ = ["Supervised"]


class Supervised(Table):
    """Settings of supervised stages (kind = "sft")."""

    examples_per_step: int = Field(default=64, ge=1, le=PROMPTS, description="Demonstrations of one training step.")
