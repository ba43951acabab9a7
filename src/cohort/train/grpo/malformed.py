"""A penalty on the very tokens of what is malformed: calls that no tool takes, and tags without their pair.

As a part of the reward it would push down all of a completion, the right answer in it, too. It is taken from the
advantages of these tokens alone, after they were normalised: the same for an easy and for a hard prompt, and there also
where all of a group fail alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from cohort.algorithms.objectives import Objective
from cohort.train.grpo.advantages import with_rows
from cohort.train.grpo.step_rewards import Decode, text_ends
from cohort.types import Group, Rollout, Turn

Span = tuple[int, int]  # characters of a text

_TAG = re.compile(r"<(/?)(think|thinking|thought|reasoning|answer)>")


def unpaired(text: str, begun: str = "", whole: bool = True) -> list[Span]:
    """Where thinking and answer tags stand that have no pair: closed and never opened, opened while they are open, or,
    of a `whole` text, never closed. `begun` is what the prompt has written of the text already.
    """
    opened: dict[str, Span] = {}
    found = []
    for tag in _TAG.finditer(begun + text):
        at = tag.start() - len(begun), tag.end() - len(begun)
        if (tag[2] in opened) != bool(tag[1]):
            found.append(at)
        elif tag[1]:
            del opened[tag[2]]
        else:
            opened[tag[2]] = at
    return sorted(at for at in [*found, *(opened.values() if whole else ())] if at[0] >= 0)


def malformed(rollout: Rollout, begun: str, decode: Decode) -> list[int]:
    """The indices of the tokens of a rollout that belong to something malformed."""
    whole = Turn(0, len(rollout.tokens), rollout.text)
    found: list[int] = []
    for at, turn in enumerate(rollout.turns or (whole,)):
        last = turn.end == len(rollout.tokens)
        spans = unpaired(turn.text, "" if at else begun, not last or rollout.finish != "length")
        spans += [call.malformed for call in turn.observation.calls if call.malformed is not None]
        if spans:
            ends = text_ends(rollout.tokens[turn.start : turn.end], decode)
            begins = [0, *ends[:-1]]
            found += [
                turn.start + t
                for t, (begin, end) in enumerate(zip(begins, ends, strict=True))
                if any(begin < stop and start < end for start, stop in spans)
            ]
    return found


def with_penalty(
    groups: Sequence[Group], objective: Objective, penalty: float, decode: Decode
) -> tuple[list[Group], dict[str, float]]:
    """The groups with `penalty` taken from the advantage of every malformed token, and how many of these there are."""
    done, count = [], 0
    for group in groups:
        places = [malformed(rollout, group.prompt.begun, decode) for rollout in group.rollouts]
        count += sum(map(len, places))
        if any(places):
            of = zip(group.advantages, group.rollouts, strict=True)
            given = group.token_advantages or [np.full(len(r.tokens), a) for a, r in of]
            rows = [np.array(row, dtype=np.float64) for row in given]
            for row, at in zip(rows, places, strict=True):
                row[at] -= penalty
            group = with_rows(group, rows, objective)
        done.append(group)
    return done, {"tokens/malformed": float(count)}
