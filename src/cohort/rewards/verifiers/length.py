"""Rewards for the length of a completion, in tokens: near a target, within a budget, DAPO's punishment of overlong
completions, the cosine of Yeo et al., the length among the completions of a group, and whether it stopped by itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from cohort.rewards.calling.parameters import Parameters
from cohort.rewards.calling.resolve import reward_called
from cohort.rewards.calling.reward import Reward
from cohort.rewards.items import Scored, ScoringItem
from cohort.rewards.marks import CHECK, checked_by, stops_after, trl
from cohort.rewards.verifiers.values import for_row
from cohort.types import RIGHT, Finish, UserError

__all__ = ["cosine", "cosine_length", "length_budget", "relative_length", "soft_overlong", "soft_overlong_tokens",
           "stops_properly", "target_length"]  # fmt: skip


def check_target(row: Mapping[str, Any], target: Any = None, column: str | None = None) -> int:
    """The target length of a row, in tokens. Raises ValueError if there is none."""
    wanted = for_row("target", target, column, row)
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        raise ValueError(f"a target length is a number of tokens, 1 or more, not {wanted!r:.80}")
    return wanted


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
    beyond = abs(check_target(row, target, column) - tokens) - tolerance
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
    return min(1.0, max(0.0, alpha * (check_target(row, target, column) - tokens) + delta))


def soft_overlong(length: int, max_tokens: int, buffer: int) -> float:
    """0 up to `max_tokens - buffer`, then falling linearly to -1 at `max_tokens`, and -1 beyond. Add it to the reward.

    DAPO's soft overlong punishment (arXiv 2503.14476, equation 13), where `max_tokens` is L_max and `buffer` L_cache. A
    buffer of 0 is a step: 0 up to the limit, -1 above.
    """
    if buffer < 0 or buffer > max_tokens:
        raise ValueError(f"buffer is between 0 and max_tokens ({max_tokens}), not {buffer}")
    free = max_tokens - buffer
    if length <= free:
        return 0.0
    if length > max_tokens:
        return -1.0
    return (free - length) / buffer


def soft_overlong_tokens(tokens: int, max_tokens: int, buffer: int) -> float:
    """`soft_overlong` of a completion's token count: the built-in reward."""
    return soft_overlong(tokens, max_tokens, buffer)


@lru_cache(maxsize=16)
def _verifier(name: str, args: str, timeout_s: float) -> Reward:
    """The reward of that name, with `timeout_s` unless `args` (JSON) give it another limit."""
    given = json.loads(args)
    reward = reward_called(name, given)
    if "timeout_s" in reward.args and "timeout_s" not in given:
        reward = reward_called(name, {**given, "timeout_s": timeout_s})
    return reward


def check_verifier(
    answer: Any,
    prompt: str,
    row: Mapping[str, Any],
    verifier: str,
    verifier_args: Mapping[str, Any] | None,
    timeout_s: float,
) -> None:
    """What the verifier's own `check_answer` says of a row. Raises UserError if there is no such verifier."""
    reward = _verifier(verifier, json.dumps(dict(verifier_args or {})), timeout_s)
    check = getattr(reward.function, CHECK, None)
    if check is not None:
        parameters = Parameters.of(check, reward.name)
        check(**parameters.chosen({**row, **reward.args, "answer": answer, "prompt": prompt, "row": row}))


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
    item = ScoringItem(prompt, (completion,), answer, row, finishes=(finish,), tokens=(tokens,))
    (scored,) = _verifier(verifier, json.dumps(dict(verifier_args or {})), timeout_s).judge(item)
    if scored.value is None:
        return Scored(None)
    right = scored.value >= RIGHT
    short, long = (right_short, right_long) if right else (wrong_short, wrong_long)
    return Scored(cosine(tokens, max_tokens, short, long), "right" if right else "wrong")


def cosine(tokens: int, max_tokens: int, short: float, long: float) -> float:
    """Half a cosine wave from `short` at 0 tokens to `long` at `max_tokens`: CosFn of the paper."""
    return long + 0.5 * (short - long) * (1 + math.cos(math.pi * tokens / max_tokens))


def stops_properly(finish: Finish, cut_off: float = 0.0) -> float:
    """1 for a completion that ended by itself, `cut_off` for one that ran into the limit of tokens (or of turns).

    As the gate of another reward: what is cut off is paid nothing, ProRL v2's rule. With a `cut_off` of -1: a penalty.
    """
    return 1.0 if finish == "stop" else cut_off


@trl
@stops_after("timeout_s")
@checked_by(check_verifier)
def relative_length(
    scoring_item: ScoringItem,
    verifier: str = "math",
    verifier_args: Mapping[str, Any] | None = None,
    timeout_s: float = 2.0,
) -> list[float | None]:
    """`-p L / max L`, L the tokens of a completion, max L those of the group's longest, p the share of the group that
    `verifier` finds right: prime-rl's length penalty (559b447, there with weight 0.25). While a problem is hard length
    is free; the more often it is solved, the more a long answer costs.
    """
    if not scoring_item.tokens:
        raise UserError("relative_length compares the lengths of completions, and nobody knows their tokens here")
    scores = _verifier(verifier, json.dumps(dict(verifier_args or {})), timeout_s).score(scoring_item)
    known = [score >= RIGHT for score in scores if not math.isnan(score)]
    if not known:
        return [None] * len(scores)
    share = sum(known) / len(known) / max(1, *scoring_item.tokens)
    return [-share * tokens for tokens in scoring_item.tokens]
