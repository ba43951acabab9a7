"""Asking one reward what it says of a completion from inside another one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from cohort.rewards.calling.parameters import Parameters
from cohort.rewards.calling.resolve import reward_called
from cohort.rewards.calling.reward import Reward
from cohort.rewards.items import ScoringItem
from cohort.rewards.marks import CHECK
from cohort.types import RIGHT

__all__ = ["check_verifier", "is_right"]


def is_right(item: ScoringItem, verifier: str, args: Mapping[str, Any] | None, timeout_s: float) -> bool | None:
    """Whether the reward called `verifier` finds the one completion of `item` right; None where it does not apply."""
    (scored,) = _reward(verifier, json.dumps(dict(args or {})), timeout_s).judge(item)
    return None if scored.value is None else scored.value >= RIGHT


def check_verifier(
    answer: Any,
    prompt: str,
    row: Mapping[str, Any],
    verifier: str,
    verifier_args: Mapping[str, Any] | None,
    timeout_s: float,
) -> None:
    """What the verifier's own `check_answer` says of a row. Raises UserError if there is no such verifier."""
    reward = _reward(verifier, json.dumps(dict(verifier_args or {})), timeout_s)
    check = getattr(reward.function, CHECK, None)
    if check is not None:
        parameters = Parameters.of(check, reward.name)
        check(**parameters.chosen({**row, **reward.args, "answer": answer, "prompt": prompt, "row": row}))


@lru_cache(maxsize=16)
def _reward(verifier: str, args: str, timeout_s: float) -> Reward:
    given = json.loads(args)
    reward = reward_called(verifier, given)
    if "timeout_s" in reward.args and "timeout_s" not in given:
        reward = reward_called(verifier, {**given, "timeout_s": timeout_s})
    return reward
