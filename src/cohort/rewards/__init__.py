"""Rewards: what scores completions, and the worker processes that run it.

    def reward(completion, answer):               # a plain function scores one completion; parameters go by name
        return float(completion.strip() == answer)

    rewards = resolve_all([RewardSpec(reward), RewardSpec("think_format", weight=0.1)])
    with RewardPool(rewards) as pool:
        scored = pool.submit(ScoringItem(prompt="2 + 2 =", answer="4", completions=("4", "5"))).result()

A wrong answer is a number. A broken reward function is a `RewardFailure` (the person mends it, the run stops). When a
worker dies, or a server that a reward asks does not answer, the group is scored again; then, as after a hang, it is
dropped (`GroupLost`, an `InfrastructureError`). None of them is ever a 0.

Nothing here imports torch or transformers, so a worker starts in milliseconds.
"""

from cohort.rewards.built_in import BUILT_IN
from cohort.rewards.combination import Combination, Gate, combine
from cohort.rewards.failure import GroupLost, RewardFailure
from cohort.rewards.items import Scored, ScoredGroup, ScoringItem
from cohort.rewards.pool import RewardPool
from cohort.rewards.reward import Reward, score_group
from cohort.rewards.spec import RewardSpec, resolve, resolve_all
from cohort.rewards.trl_style import trl

__all__ = [
    "BUILT_IN",
    "Combination",
    "Gate",
    "GroupLost",
    "Reward",
    "RewardFailure",
    "RewardPool",
    "RewardSpec",
    "Scored",
    "ScoredGroup",
    "ScoringItem",
    "combine",
    "resolve",
    "resolve_all",
    "score_group",
    "trl",
]
