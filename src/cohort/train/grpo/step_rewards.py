"""Process supervision: from scores of steps to an advantage for every token (DeepSeekMath 2402.03300, section 4.1.3).

All step scores of a group are normalised in one pool; a token gets the sum of the normalised scores of the steps that
end at it or later. Rewards of whole completions beside them are normalised as the objective says, and their advantage
is added to every token.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from cohort.algorithms.advantages import process_supervision
from cohort.algorithms.objectives import Objective
from cohort.rewards import Combination
from cohort.rewards.combination import combine
from cohort.train.grpo.advantages import with_rows
from cohort.types import Group, Rollout, Step, UserError

Decode = Callable[[Sequence[int]], str]
_LONGEST_CHARACTER = 16  # tokens: four bytes, and special tokens between them, which the text leaves out


def token_steps(rollout: Rollout, steps: Sequence[tuple[int, float]], decode: Decode) -> tuple[Step, ...]:
    """Steps that end in the text, as steps that end in tokens: each at the token with its last character.

    The last one ends with the last token that belongs to the text, the end token included: stopping is part of it. Of
    several turns the text is the last one. Raises `UserError` where the text is not that of the tokens.
    """
    if not steps:
        return ()
    first, last = (rollout.turns[-1].start, rollout.turns[-1].end) if rollout.turns else (0, len(rollout.tokens))
    tokens = rollout.tokens[first:last]
    if not decode(tokens).startswith(rollout.text):
        raise UserError(
            f"the steps of a completion cannot be found in its tokens: its text {rollout.text[:60]!r} is not what they "
            "decode to, so process supervision cannot be used with this environment or tokenizer"
        )
    reached = text_ends(tokens, decode)
    places = [min(bisect_left(reached, end), len(tokens) - 1) for end, _ in steps[:-1]]
    return tuple(Step(first + at, score) for at, (_, score) in zip([*places, len(tokens) - 1], steps, strict=True))


def text_ends(tokens: Sequence[int], decode: Decode) -> list[int]:
    """For every token, how many characters of the text are there once it is. Never decreasing.

    A character that is spread over several tokens counts at its last one. Tokens are decoded in small windows, each
    with the one before it, as a tokenizer may write a token in another way at the beginning of a text; where the
    windows do not add up to the whole text, every beginning is decoded.
    """
    ends: list[int] = []
    done = start = settled = 0  # characters; tokens[start:settled] is the context of tokens[settled:]
    for index in range(len(tokens)):
        before, now = decode(tokens[start:settled]), decode(tokens[start : index + 1])
        complete = len(now) > len(before) and not now.endswith("\ufffd")
        if complete or index - settled >= _LONGEST_CHARACTER:
            done += max(len(now) - len(before), 0)
            start, settled = settled, index + 1
        ends.append(done)
    whole = len(decode(tokens))
    if done != whole:
        beginnings = (decode(tokens[: index + 1]).rstrip("\ufffd") for index in range(len(tokens)))
        ends = list(accumulate(map(len, beginnings), max))
    return [*ends[:-1], whole] if ends else []


def with_process_advantages(
    groups: Sequence[Group], objective: Objective, combination: Combination, names: Sequence[str]
) -> list[Group]:
    """The groups with an advantage for every token; `names` are the rewards that score steps.

    Each of them is normalised by itself, and its weight multiplies its advantages.
    """
    outcome = _outcome_advantages(groups, objective, combination, names)  # [P, G]
    done = []
    for group, base in zip(groups, outcome, strict=True):
        lengths = [len(rollout.tokens) for rollout in group.rollouts]
        total = base[:, None].repeat(1, max(lengths))  # [G, T]
        for name in names:
            steps = _paid_steps(group, name, combination)
            scores = [[step.score for step in of] for of in steps]
            ends = [[step.end for step in of] for of in steps]
            scale = "none" if objective.scale == "none" else "group_std"
            advantages = process_supervision(scores, ends, lengths, objective.ddof, objective.eps, scale)
            total += combination.weights[name] * advantages
        rows = [row[: len(r.tokens)] for row, r in zip(total.numpy(), group.rollouts, strict=True)]
        done.append(with_rows(group, rows, objective))
    return done


def _outcome_advantages(
    groups: Sequence[Group], objective: Objective, combination: Combination, names: Sequence[str]
) -> Tensor:
    """What the rewards of whole completions give, `[P, G]`; zeros where there are none."""
    weights = {name: 0.0 if name in names else weight for name, weight in combination.weights.items()}
    if not any(weights.values()):
        return torch.zeros(len(groups), len(groups[0].rollouts), dtype=torch.float64)
    rewards = [combine(combination.paid(group.scores), weights) for group in groups]
    return objective.advantages(torch.tensor(rewards, dtype=torch.float64))


def _paid_steps(group: Group, name: str, combination: Combination) -> list[tuple[Step, ...]]:
    """The steps of a reward after its gate: where that is shut their scores are 0, or there are none."""
    steps = list(group.steps.get(name, ((),) * len(group.rollouts)))
    shut = combination.shut(group.scores).get(name, (False,) * len(steps))
    if name in combination.gates and combination.gates[name].otherwise == "none":
        return [() if closed else of for of, closed in zip(steps, shut, strict=True)]
    return [tuple(Step(step.end, 0.0) for step in of) if closed else of for of, closed in zip(steps, shut, strict=True)]


def step_metrics(groups: Sequence[Group], names: Sequence[str]) -> dict[str, float]:
    """How many steps completions have, by reward."""
    found = {name: [len(of) for group in groups for of in group.steps.get(name, ())] for name in names}
    return {f"reward/{name}/steps": math.fsum(of) / len(of) for name, of in found.items() if of}
