"""How groups of completions are sampled."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cohort.settings.one_of import OneOf
from cohort.settings.table import PROMPTS, TOKENS, Table, Texts
from cohort.types import Sampling

__all__ = ["SAMPLERS", "Rollout"]

# Who may sample, and where it is: "module:name" of a function that opens a sampler (see `backends.base`).
SAMPLERS = {"local": "cohort.backends.local:open_engine"}


class Rollout(Table):
    """How groups of completions are sampled."""

    prompts_per_step: int = Field(default=16, ge=1, le=PROMPTS, description="Prompts of one training step.")
    group_size: int = Field(default=8, ge=1, le=2**16, description="Completions of each prompt.")
    max_tokens: int = Field(default=512, ge=1, le=TOKENS, description="Longest completion.")
    temperature: float = Field(
        default=1.0, gt=0, description="Sampling temperature; also applied to every log-probability."
    )
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus sampling; 1 is off, as training needs.")
    top_k: int = Field(
        default=0, ge=0, le=TOKENS, description="Sample from the k likeliest tokens; 0 is off, as training needs."
    )
    min_p: float = Field(
        default=0.0, ge=0, lt=1, description="Least share of the likeliest token's; 0 is off, as training needs."
    )
    stop: Texts = Field(default=(), description="Texts that end a completion.")
    sampler: Annotated[str, OneOf(SAMPLERS)] = Field(
        default="local", description="Who samples; local: the engine in this process; or module:name of your own."
    )
    max_staleness: int = Field(
        default=0, ge=0, le=PROMPTS, description="Updates that a rollout may be behind; 0 is strictly on-policy."
    )
    max_rows: int = Field(default=256, ge=1, le=PROMPTS, description="Completions decoded at the same time.")
    resample_cap: int = Field(
        default=4,
        ge=1,
        le=PROMPTS,
        description="With zero_std = resample: sample at most so many times prompts_per_step prompts a step.",
    )

    def sampling(self) -> Sampling:
        """How training rollouts are drawn."""
        return Sampling(self.max_tokens, self.temperature, self.top_p, self.top_k, self.min_p, tuple(self.stop))
