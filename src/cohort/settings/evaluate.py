"""How held-out accuracy is measured."""

from __future__ import annotations

from pydantic import Field

from cohort.settings.rollout import Rollout
from cohort.settings.table import COUNT, TOKENS, Function, Table, Text
from cohort.types import Sampling

__all__ = ["Evaluate"]


class Evaluate(Table):
    """How held-out accuracy is measured."""

    problems: int = Field(
        default=500, ge=0, le=COUNT, description="Held-out problems to use, at most; 0: no evaluation."
    )
    samples: int = Field(default=1, ge=0, le=2**16, description="Sampled completions of each problem; 0: none.")
    temperature: float = Field(default=1.0, gt=0, description="Temperature of the sampled completions.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus sampling; 1 is off.")
    top_k: int = Field(default=0, ge=0, le=TOKENS, description="Sample from the k likeliest tokens; 0 is off.")
    min_p: float = Field(default=0.0, ge=0, lt=1, description="Least share of the likeliest token's; 0 is off.")
    greedy: bool = Field(default=True, description="Also measure greedy decoding.")
    reward: Text | Function | None = Field(
        default=None, description="Verifier that decides what is right; the first reward when not given."
    )
    gold: Text | None = Field(
        default=None,
        description="Column of completions that are right as they stand, for the gate; else it writes out the answer.",
    )
    max_tokens: int | None = Field(
        default=None, ge=1, le=TOKENS, description="Longest completion; rollout.max_tokens when not given."
    )

    def sampling(self, rollout: Rollout, greedy: bool) -> Sampling:
        """How evaluation completions are drawn; what is not said here is as in training."""
        limit, stop = self.max_tokens or rollout.max_tokens, tuple(rollout.stop)
        if greedy:
            return Sampling(limit, 0.0, stop=stop)
        return Sampling(limit, self.temperature, self.top_p, self.top_k, self.min_p, stop)
