"""Groups of earlier steps, learnt from once more as the log has them, with the log-probs of the weights then."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cohort.record.rollouts import read_groups
from cohort.seeds import derive_seed
from cohort.settings import Rollout
from cohort.types import Group


def earlier(log: Path, step: int, rollout: Rollout, seed: int) -> list[Group]:
    """`rollout.replay` groups of the `replay_age` steps before `step`, drawn by a hash from those with an advantage, as
    they were before they were learnt from; fewer where there are fewer. Raises `UserError` where texts were erased.
    """
    files = {at: log / f"step-{at:06d}.parquet" for at in range(max(1, step - rollout.replay_age), step)}
    found = [
        group
        for at, file in files.items()
        if file.exists()  # a fork has none of its parent's
        for group in fresh(read_groups(file), at, rollout)
        if group.disposition == "trained" and any(group.advantages)
    ]
    chosen = sorted(found, key=lambda group: derive_seed(seed, "replay", step, group.ticket))[: rollout.replay]
    return [
        group.with_(advantages=(), token_advantages=(), disposition=None)
        for group in sorted(chosen, key=lambda group: group.ticket)
    ]


def fresh(groups: Iterable[Group], step: int, rollout: Rollout) -> list[Group]:
    """The groups that were sampled for `step`, without those that are learnt from once more."""
    if not rollout.replay:
        return list(groups)
    return [group for group in groups if not group.rollouts or group.rollouts[0].version >= step - 1]
