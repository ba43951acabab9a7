"""The built-in rewards by the names that recipes use."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cohort.rewards.chance import coin
from cohort.rewards.number import exact_number
from cohort.rewards.overlong import soft_overlong_tokens
from cohort.rewards.think import think_format

__all__ = ["BUILT_IN", "FUNCTIONS"]

FUNCTIONS: Mapping[str, Callable[..., float]] = {
    "exact_number": exact_number,
    "think_format": think_format,
    "random": coin,
    "soft_overlong": soft_overlong_tokens,
}

BUILT_IN: Mapping[str, str] = {
    "exact_number": "1 if the final answer equals the gold number exactly (<answer>, \\boxed{} or ####), else 0",
    "think_format": "1 if the whole text is <think> ... </think><answer> ... </answer>, else 0",
    "random": "a fair coin, 0 or 1, that ignores the text: the control that must not improve anything",
    "soft_overlong": "DAPO's length penalty from 0 to -1; args max_tokens and buffer",
}
