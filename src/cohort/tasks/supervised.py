"""One example for supervised training."""

from __future__ import annotations

from dataclasses import dataclass

from cohort.types import Prompt

__all__ = ["SupervisedExample"]


@dataclass(frozen=True, slots=True)
class SupervisedExample:
    """A prompt and the completion to learn."""

    prompt: Prompt
    completion: str
