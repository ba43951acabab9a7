"""The rewards that a task of the library `verifiers` has of its own, for prompts of a source "verifiers:PACKAGE"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from cohort.integrations.verifiers.play import COLUMN, play, require_library
from cohort.rewards.items import Scored
from cohort.rewards.marks import prepared_by
from cohort.types import Finish, Message, UserError
from cohort.wording import did_you_mean

__all__ = ["verifiers"]


def load(part: str | None = None) -> None:
    """Import the library. Raises UserError where it is not there."""
    require_library()


@prepared_by(load)
def verifiers(
    transcript: Sequence[Message], row: Mapping[str, Any], finish: Finish = "stop", part: str | None = None
) -> Scored | None:
    """The weighted sum of the task's rewards, or the one called `part`, unweighted; None for a prompt that is no task
    of `verifiers`. The label `cut_off` says that the environment would have gone on.
    """
    task = row.get(COLUMN)
    if task is None:
        return None
    replies = [str(message["content"]) for message in transcript if message["role"] == "assistant"]
    runs = (tuple(run) for own, run in groupby(transcript, lambda message: message["role"] == "assistant") if not own)
    played = play(task, replies, finish, score=True)
    if played.said[1 : len(replies)] != tuple(runs):
        raise UserError(
            f"the verifiers environment {task['id']!r} says something else to the replies of a rollout than it did in "
            "the rollout: let what it draws depend on the task's data alone"
        )
    if part is not None and part not in played.rewards:
        known = ", ".join(played.rewards) or "none"
        raise UserError(f"{task['id']!r} has no reward {part!r}{did_you_mean(part, played.rewards)}; it has {known}")
    scores = played.rewards
    value = sum(score * weight for score, weight in scores.values()) if part is None else scores[part][0]
    return Scored(value, None if played.over else "cut_off")
