"""Rewards that say nothing, and one that errs: the controls for every claim that training works."""

from __future__ import annotations

import hashlib
from typing import Any

from cohort.rewards.marks import checked_by
from cohort.rewards.verifiers.number import check_number, exact_number


def coin(seed: int) -> float:
    """0 or 1 with equal probability, fixed by the seed alone."""
    return float(hashlib.blake2b(str(seed).encode(), digest_size=1).digest()[0] & 1)


def _checked(answer: Any, noise: float = 0.1) -> None:
    if not 0 <= noise <= 1:
        raise ValueError(f"noise is the share of labels that are wrong, from 0 to 1, not {noise}")
    check_number(answer)


@checked_by(_checked)
def noisy_number(completion: str, answer: Any, seed: int, noise: float = 0.1) -> float:
    """`exact_number` with a share of wrong labels: with probability `noise` 1 for a wrong answer and 0 for a right one,
    fixed by the seed of the completion. To see how much wrong labelling training stands.
    """
    score = float(exact_number(completion, answer))
    draw = int.from_bytes(hashlib.blake2b(f"{seed} noise".encode(), digest_size=6).digest(), "big") / 2**48
    return 1.0 - score if draw < noise else score


def constant(completion: str) -> float:
    """1 for every completion."""
    return 1.0
