"""The turns of tasks that come from a source "verifiers:PACKAGE", as their own environment has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cohort.integrations.verifiers.play import COLUMN, play
from cohort.types import Message, Observation, Prompt, UserError

__all__ = ["VerifiersTurns"]


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
