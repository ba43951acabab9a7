"""The turns and the rewards of tasks that come from a source "verifiers:PACKAGE", as their own environment has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from cohort.integrations.verifiers.play import COLUMN, play, require_library
from cohort.rewards.items import Scored
from cohort.rewards.marks import prepared_by
from cohort.types import Finish, Message, Observation, Prompt, UserError
from cohort.wording import did_you_mean


@dataclass(slots=True)
class _Conversation:
    """A task, what the environment said so far (first its prompt), and the replies."""

    task: Mapping[str, Any]
    said: tuple[tuple[Message, ...], ...]
    replies: list[str] = field(default_factory=list)


class VerifiersTurns:
    """Asks the environment of each prompt's task what follows a reply. See `play`."""

    def reset(self, prompt: Prompt, seed: int) -> _Conversation:
        """Begin with the prompt. Raises UserError for one that is no task of `verifiers`."""
        task = prompt.tags.get(COLUMN)
        if task is None:
            raise UserError(
                'environment.use = "verifiers" plays tasks of a source "verifiers:PACKAGE", and the prompt '
                f"{prompt.question[:60]!r} is none: remove the table, or such prompts"
            )
        opening = prompt.messages or ({"role": "user", "content": prompt.text},)
        return _Conversation(task, (tuple(opening),))

    def step(self, state: _Conversation, reply: str) -> Observation:
        """What the environment says to a reply. Raises UserError when it contradicts what it has said before."""
        state.replies.append(reply)
        played = play(state.task, state.replies)
        if played.said[: len(state.said)] != state.said:
            raise UserError(
                f"the verifiers environment {state.task['id']!r} does not say the same to the same replies: let what "
                "it draws depend on the task's data alone"
            )
        state.said = played.said
        return Observation(() if played.over else played.said[-1])


@prepared_by(require_library)
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
