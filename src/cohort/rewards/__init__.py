"""Rewards: what scores completions, and the worker processes that run it.

    def reward(completion, answer):               # a plain function scores one completion; parameters go by name
        return float(completion.strip() == answer)

    rewards = resolve_all([RewardTable(use=reward), RewardTable(use="think_format", weight=0.1)])
    with RewardPool(rewards) as pool:
        scored = pool.submit(ScoringItem(prompt="2 + 2 =", answer="4", completions=("4", "5"))).result()

A wrong answer is a number. A broken reward function is a `RewardFailure` (the person mends it, the run stops). When a
worker dies, or a server that a reward asks does not answer, the group is scored again; then, as after a hang, it is
dropped (`GroupLost`, an `InfrastructureError`). None of them is ever a 0.

`RewardTable` is the recipe's table. Nothing here imports torch or transformers, and what a worker does not need (the
pool, the tables, the built-in rewards) is imported on first use, so a worker starts in milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cohort.rewards.built_in import BUILT_IN
from cohort.rewards.calling.reward import Reward, score_group
from cohort.rewards.combination import Combination, Gate, combine
from cohort.rewards.failure import GroupLost, RewardFailure
from cohort.rewards.items import Scored, ScoredGroup, ScoringItem
from cohort.rewards.marks import trl

if TYPE_CHECKING:
    from cohort.rewards.calling.resolve import resolve, resolve_all
    from cohort.rewards.workers.pool import RewardPool
    from cohort.settings.reward import Reward as RewardTable

__all__ = [
    "BUILT_IN",
    "Combination",
    "Gate",
    "GroupLost",
    "Reward",
    "RewardFailure",
    "RewardPool",
    "RewardTable",
    "Scored",
    "ScoredGroup",
    "ScoringItem",
    "combine",
    "resolve",
    "resolve_all",
    "score_group",
    "trl",
]

_LATE = {
    "RewardPool": ("cohort.rewards.workers.pool", "RewardPool"),
    "RewardTable": ("cohort.settings.reward", "Reward"),
    "resolve": ("cohort.rewards.calling.resolve", "resolve"),
    "resolve_all": ("cohort.rewards.calling.resolve", "resolve_all"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'cohort.rewards' has no attribute {name!r}")
    module, attribute = _LATE[name]
    return globals().setdefault(name, getattr(importlib.import_module(module), attribute))
