"""Rewards for the length of a completion, in tokens: near a target, within a budget, and the cosine of Yeo et al."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cohort.rewards.items import Scored
from cohort.rewards.marks import checked_by, stops_after
from cohort.rewards.per_row import for_row
from cohort.rewards.verdict import check_verifier, is_right
from cohort.types import Finish

__all__ = ["cosine", "cosine_length", "length_budget", "target_length"]


def check_target(row: Mapping[str, Any], target: Any = None, column: str | None = None) -> None:
    """Raise ValueError if there is no target length for a row."""
    _tokens(row, target, column)


@checked_by(check_target)
def target_length(
    tokens: int,
    row: Mapping[str, Any],
    target: int | None = None,
    column: str | None = None,
    alpha: float = 0.0003,
    tolerance: int = 0,
    lowest: float = -1.0,
) -> float:
    """`-alpha |target - tokens|`, at least `lowest`: the length term of L1-Exact (arXiv 2503.04697, equation 1).

    A difference of up to `tolerance` tokens costs nothing, and only what is beyond it counts. `target` is the number of
    tokens for all rows, or `column` names the column that holds each row's own.
    """
    beyond = abs(_tokens(row, target, column) - tokens) - tolerance
    return max(lowest, -alpha * max(0, beyond))


@checked_by(check_target)
def length_budget(
    tokens: int,
    row: Mapping[str, Any],
    target: int | None = None,
    column: str | None = None,
    alpha: float = 0.0003,
    delta: float = 0.5,
) -> float:
    """`clip(alpha (target - tokens) + delta, 0, 1)`: the length factor of L1-Max (arXiv 2503.04697, equation 2).

    There it multiplies a correctness of 0 or 1: give it a gate on the verifier. `target` and `column` as above.
    """
    return min(1.0, max(0.0, alpha * (_tokens(row, target, column) - tokens) + delta))


@stops_after("timeout_s")
@checked_by(check_verifier)
def cosine_length(
    completion: str,
    tokens: int,
    finish: Finish,
    answer: Any,
    prompt: str,
    row: Mapping[str, Any],
    max_tokens: int,
    verifier: str = "math",
    verifier_args: Mapping[str, Any] | None = None,
    right_short: float = 1.0,
    right_long: float = 0.5,
    wrong_short: float = -1.0,
    wrong_long: float = -0.5,
    exceeded: float = -1.0,
    timeout_s: float = 2.0,
) -> Scored:
    """The cosine reward (Yeo et al., arXiv 2502.03373): short right answers pay most, short wrong ones cost most.

    `cosine(tokens, max_tokens, right_short, right_long)` where `verifier` (a reward by its name) scores 0.5 or more,
    with `wrong_short` and `wrong_long` else, and `exceeded` for a completion that was cut off. Where the verifier does
    not apply, this does not either. `timeout_s` is the verifier's, if it has one. Labels: right, wrong, cut_off.
    """
    if finish == "length" or tokens > max_tokens:
        return Scored(exceeded, "cut_off")
    right = is_right(verifier, verifier_args, timeout_s, completion, tokens, finish, answer, prompt, row)
    if right is None:
        return Scored(None)
    short, long = (right_short, right_long) if right else (wrong_short, wrong_long)
    return Scored(cosine(tokens, max_tokens, short, long), "right" if right else "wrong")


def cosine(tokens: int, max_tokens: int, short: float, long: float) -> float:
    """Half a cosine wave from `short` at 0 tokens to `long` at `max_tokens`: CosFn of the paper."""
    return long + 0.5 * (short - long) * (1 + math.cos(math.pi * tokens / max_tokens))


def _tokens(row: Mapping[str, Any], target: Any, column: str | None) -> int:
    wanted = for_row("target", target, column, row)
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        raise ValueError(f"a target length is a number of tokens, 1 or more, not {wanted!r:.80}")
    return wanted
