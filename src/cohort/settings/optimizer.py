"""AdamW, the learning rate, and how a batch becomes updates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cohort.settings.table import COUNT, PROMPTS, Table

__all__ = ["Optimizer"]


class Optimizer(Table):
    """AdamW and how a batch becomes updates."""

    learning_rate: float = Field(default=1e-6, ge=0, description="Peak learning rate.")
    warmup_steps: int = Field(default=0, ge=0, le=COUNT, description="Steps over which the learning rate rises from 0.")
    schedule: Literal["constant", "linear", "cosine"] = Field(default="constant", description="After the warm-up.")
    # 0.999 is what AdamW, TRL, verl and the DAPO recipe use, so a run moved over keeps its optimizer; 0.95, known from
    # pretraining, forgets faster than the few hundred noisy steps of a GRPO run reward.
    betas: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]], Field(strict=False)
    ] = Field(default=(0.9, 0.999), description="AdamW's two averages.")
    eps: float = Field(default=1e-8, gt=0, description="AdamW's epsilon.")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's decoupled weight decay.")
    gradient_clip: float = Field(default=1.0, ge=0, description="Largest gradient norm; 0 is off.")
    updates_per_batch: int = Field(
        default=1, ge=1, le=PROMPTS, description="Optimizer updates that a batch is split into, by prompt."
    )
    epochs: int = Field(default=1, ge=1, le=PROMPTS, description="Passes over a batch.")
    tokens_per_micro_batch: int = Field(
        default=4096, ge=1, le=COUNT, description="Tokens in memory at once; does not change the result."
    )
