"""Asking one reward what it says of a completion from inside another one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from cohort.rewards.items import ScoringItem
from cohort.rewards.marks import CHECK
from cohort.rewards.parameters import Parameters
from cohort.rewards.reward import Reward
from cohort.types import Finish

__all__ = ["check_verifier", "is_right"]

_RIGHT = 0.5


def is_right(
    verifier: str,
    args: Mapping[str, Any] | None,
    timeout_s: float,
    completion: str,
    tokens: int,
    finish: Finish,
    answer: Any,
    prompt: str,
    row: Mapping[str, Any],
) -> bool | None:
    """Whether the reward called `verifier` gives the completion 0.5 or more; None where it does not apply."""
    item = ScoringItem(prompt, (completion,), answer, row, finishes=(finish,), tokens=(tokens,))
    (scored,) = _reward(verifier, json.dumps(dict(args or {})), timeout_s).judge(item)
    return None if scored.value is None else scored.value >= _RIGHT


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
        values = {**row, **reward.args, "answer": answer, "prompt": prompt, "row": row}
        check(**{key: value for key, value in values.items() if parameters.takes(key)})


@lru_cache(maxsize=16)
def _reward(verifier: str, args: str, timeout_s: float) -> Reward:
    from cohort.rewards.spec import RewardSpec, resolve  # they name the built-in rewards, of which one asks this

    given = json.loads(args)
    reward = resolve(RewardSpec(verifier, args=given))
    if "timeout_s" in reward.args and "timeout_s" not in given:
        reward = resolve(RewardSpec(verifier, args={**given, "timeout_s": timeout_s}))
    return reward
