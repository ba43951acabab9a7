"""The policy that the KL term compares with."""

from __future__ import annotations

from pydantic import Field

from cohort.settings.table import COUNT, Table

__all__ = ["Reference"]


class Reference(Table):
    """The policy that the KL term compares with: the starting model, unless it is moved."""

    update_every: int = Field(default=0, ge=0, le=COUNT, description="Steps between updates from the policy; 0: never.")
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of the old reference kept at an update (at every step if update_every is 0); else a copy.",
    )
