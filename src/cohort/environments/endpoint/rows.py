"""From the calls of an agent to what is trained on: calls that go on from each other are one row of tokens, a history
that was written anew begins another. Pure functions of what was sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cohort.frozen_array import FrozenArray
from cohort.types import Completion, Finish, Message, Observation, Rollout, Turn


@dataclass(frozen=True, slots=True)
class Answered:
    """A completion that an agent was given: the tokens before it, the messages in them that were new, and its text."""

    prompt: tuple[int, ...]
    new: tuple[Message, ...]
    completion: Completion
    text: str


@dataclass(slots=True)
class Row:
    """One row: its tokens from the first one of the first prompt on, and where the policy chose them."""

    tokens: list[int]
    mask: list[bool]
    logprobs: list[float]
    calls: list[int] = field(default_factory=list)  # which calls it holds
    spans: list[tuple[int, int]] = field(default_factory=list)  # where their completions are


def rows_of(calls: Sequence[Answered]) -> list[Row]:
    """The rows of an episode, in the order of their first calls. A call goes on in the longest row that its prompt
    begins with, token by token; what it adds is not the policy's. Where there is none, its whole prompt is context.
    """
    rows: list[Row] = []
    for number, call in enumerate(calls):
        fits = [row for row in rows if call.prompt[: len(row.tokens)] == tuple(row.tokens)]
        row = max(fits, key=lambda one: len(one.tokens), default=None)
        if row is None:
            rows.append(row := Row([], [], []))
        added, own = call.prompt[len(row.tokens) :], call.completion
        row.tokens += (*added, *own.tokens)
        row.mask += [False] * len(added) + [True] * len(own.tokens)
        row.logprobs += [0.0] * len(added) + [float(one) for one in own.logprobs]
        row.calls.append(number)
        row.spans.append((len(row.tokens) - len(own.tokens), len(row.tokens)))
    return rows


def stem_of(rows: Sequence[Row]) -> tuple[int, ...]:
    """The tokens that all rows begin with and none was chosen of: what their group is computed behind once."""
    least = min(rows, key=lambda row: row.mask.index(True)) if rows else Row([], [], [])
    length = least.mask.index(True) if rows else 0
    for row in rows:
        length = next((at for at in range(length) if row.tokens[at] != least.tokens[at]), length)
    return tuple(least.tokens[:length])


def rollout_of(
    calls: Sequence[Answered], stem: int, finish: Finish, text: str | None, paid: Sequence[float | None]
) -> Rollout:
    """The rollout of an episode behind a stem of so many tokens. `text` is what the agent came to: its last answer
    where it said nothing; `paid` is the reward of each call, where there is one.
    """
    rows, turns, offset = rows_of(calls), {}, 0
    for index, row in enumerate(rows):
        for at, number in enumerate(row.calls):
            start, end = (offset + place - stem for place in row.spans[at])
            turns[number] = Turn(start, end, calls[number].text, row=offset if index and not at else None)
        offset += len(row.tokens) - stem
    said = [Observation(after.new) for after in calls[1:]] + [Observation()]
    whole = [replace(turns[number], observation=said[number], reward=paid[number]) for number in range(len(calls))]
    return Rollout(
        tokens=FrozenArray([token for row in rows for token in row.tokens[stem:]], np.int64),
        mask=FrozenArray([own for row in rows for own in row.mask[stem:]], np.bool_),
        logprobs=FrozenArray([one for row in rows for one in row.logprobs[stem:]], np.float32),
        version=calls[-1].completion.version,
        finish=finish,
        text=calls[-1].text if text is None else text,
        turns=tuple(whole),
    )
