"""The trivial environment: the first reply is the last."""

from __future__ import annotations

from cohort.types import Observation, Prompt

__all__ = ["SingleTurn"]


class SingleTurn:
    """Says nothing, so a rollout is one completion."""

    def reset(self, prompt: Prompt, seed: int) -> None:
        """There is no state."""

    def step(self, state: None, reply: str) -> Observation:
        """The rollout is over."""
        return Observation()
