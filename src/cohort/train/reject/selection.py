"""Which samples of scored groups are kept, and why each of the others is not. Pure: the same groups, the same choice.

First every sample is judged by itself (`judge`), then all of them together (`select`): duplicates go, of one prompt
the best stay, and the values of a column get their shares. What is kept does not depend on how groups were dealt out
over steps.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cohort.environments.formats import RESULT
from cohort.rewards import Combination
from cohort.settings import Reject
from cohort.types import RIGHT, Group, Message, Prompt, Rollout, UserError

KEPT = ""  # the reason of a sample that is not refused
DIFFICULTY = "difficulty"
_QUARTERS = ("0 to 25% right", "25 to 50% right", "50 to 75% right", "75 to 100% right")
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Sample:
    """One rollout of a group with what was said of it. `why` is the reason it is refused, `KEPT` where it is not."""

    step: int
    ticket: int
    member: int
    prompt: Prompt
    rollout: Rollout
    scores: Mapping[str, float]
    reward: float
    pass_rate: float | None  # of its group
    why: str = KEPT

    @property
    def text(self) -> str:
        """The completion as a demonstration has it: what tools answered stands in it, between its marks."""
        said = ((turn.text, *map(_shown, turn.observation.messages)) for turn in self.rollout.turns)
        return "".join(part for parts in said for part in parts) if self.rollout.turns else self.rollout.text


@dataclass(frozen=True, slots=True)
class Selection:
    """The samples that are kept, in the order of tickets, pairs of a kept and a wrong one, and how many of all were
    refused for which reason.
    """

    kept: tuple[Sample, ...]
    pairs: tuple[tuple[Sample, Sample], ...]
    sampled: int
    prompts: int
    refused: Mapping[str, int]

    @property
    def prompts_kept(self) -> int:
        """Of how many prompts any sample is kept."""
        return len({one.prompt.id for one in self.kept})

    def words(self) -> str:
        """`12 of 64 samples kept, of 8 of 16 prompts; refused: 40 wrong, 12 duplicate`."""
        why = ", ".join(f"{count:,} {reason}" for reason, count in self.refused.items())
        of = f"of {self.prompts_kept:,} of {self.prompts:,} prompts"
        return f"{len(self.kept):,} of {self.sampled:,} samples kept, {of}; refused: {why or 'none'}"


def judge(group: Group, table: Reject, combination: Combination, step: int = 0) -> list[Sample]:
    """The samples of a group, each with the first reason to refuse it by itself. A group that could not be scored has
    no samples.
    """
    if group.error is not None or not group.scores:
        return []
    decides, rate = combination.deciding(group.scores), group.pass_rate
    found = []
    for member, rollout in enumerate(group.rollouts):
        scores = {name: of[member] for name, of in group.scores.items()}
        why = _refusal(scores, decides, rollout, rate, table)
        reward = group.rewards[member]
        found.append(Sample(step, group.ticket, member, group.prompt, rollout, scores, reward, rate, why))
    return found


def _refusal(scores: Mapping[str, float], decides: str, rollout: Rollout, rate: float | None, table: Reject) -> str:
    low = (name for name, least in table.least.items() if scores[name] < least)  # one that is NaN does not apply
    reasons = {
        "not scored": math.isnan(scores[decides]),
        "wrong": scores[decides] < table.least.get(decides, RIGHT),
        **{f"low {name}": True for name in low},
        "cut off": rollout.finish == "length" and not table.truncated,
        "out of turns": rollout.finish == "tool",
        # A demonstration is one message.
        "several messages": len(rollout.turns) > 1 and rollout.text != "".join(turn.text for turn in rollout.turns),
        "too hard": rate is not None and rate < table.hardest,
        "too easy": rate is not None and rate > table.easiest,
    }
    return next((reason for reason, applies in reasons.items() if applies), KEPT)


def select(samples: Iterable[Sample], table: Reject) -> Selection:
    """What is kept of samples that were judged. Of equal texts to one prompt the first is kept, of one prompt the
    `per_prompt` with the highest reward, and of what the balance leaves too many of, later samples of a prompt go
    before first ones. Raises `UserError` for a balance by a column that prompts do not have.
    """
    everything = list(samples)
    refused = Counter(one.why for one in everything if one.why)
    left = [one for one in everything if not one.why]
    for reason, narrow in (
        ("duplicate", _distinct),
        ("over per_prompt", lambda of: _best(of, table.per_prompt)),
        ("out of balance", lambda of: _balanced(of, table)),
    ):
        narrowed = narrow(left)
        refused[reason] += len(left) - len(narrowed)
        left = narrowed
    left.sort(key=lambda one: (one.ticket, one.member))
    prompts = len({one.prompt.id for one in everything})
    counts = {reason: count for reason, count in refused.most_common() if count}
    pairs = tuple(_pairs(left, everything, table.pairs, table.truncated))
    return Selection(tuple(left), pairs, len(everything), prompts, counts)


def _plain(one: Sample) -> str:
    return _SPACES.sub(" ", one.text).strip()


def _shown(message: Message) -> str:
    content = str(message["content"])
    return content.join(RESULT) if message["role"] == "tool" else content


def _of_prompts(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = defaultdict(list)
    for one in samples:
        found[one.prompt.id].append(one)
    return found


def _distinct(samples: Sequence[Sample]) -> list[Sample]:
    """Without texts that differ from an earlier one of the same prompt in white space alone."""
    first = {(one.prompt.id, _plain(one)): one for one in reversed(samples)}
    return list(reversed(first.values()))


def _best(samples: Sequence[Sample], most: int) -> list[Sample]:
    found = _of_prompts(samples).values()
    return [one for of in found for one in sorted(of, key=lambda one: (-one.reward, one.ticket, one.member))[:most]]


def _balanced(samples: Sequence[Sample], table: Reject) -> list[Sample]:
    """As many as can be kept with the shares that the values of a column are to have."""
    if table.balance is None or not samples:
        return list(samples)
    by_value: dict[str, list[Sample]] = defaultdict(list)
    for one in samples:
        by_value[_value(one, table.balance)].append(one)
    if strange := sorted(table.shares.keys() - by_value.keys()):
        there = ", ".join(by_value)
        raise UserError(f"reject.shares gives {strange[0]!r} a share, and of it no sample is kept; there is {there}")
    weights = {value: table.shares.get(value, 0.0) if table.shares else 1.0 for value in by_value}
    most = min((len(by_value[value]) / weight for value, weight in weights.items() if weight), default=0.0)
    found = []
    for value, of in by_value.items():
        rank: Counter[str] = Counter()
        order = []
        for one in of:  # of each prompt the best come first
            order.append((rank[one.prompt.id], one.ticket, one.member, one))
            rank[one.prompt.id] += 1
        kept = sorted(order, key=lambda entry: entry[:3])[: math.floor(most * weights[value] + 1e-9)]
        found += [one for *_, one in kept]
    return found


def _value(one: Sample, column: str) -> str:
    if column == DIFFICULTY:
        return _QUARTERS[min(3, math.floor(4 * (one.pass_rate or 0.0)))]
    refuse_no_column(one.prompt, column)
    return str(one.prompt.tags[column])


def refuse_no_column(prompt: Prompt, column: str) -> None:
    """Raise `UserError` where a prompt lacks the column whose values are to be balanced."""
    if column not in (DIFFICULTY, *prompt.tags):
        raise UserError(
            f"reject.balance = {column!r} is no column of the prompt {prompt.id}; it has "
            f'{", ".join(prompt.tags) or "none"}; or say "{DIFFICULTY}"'
        )


def _pairs(
    kept: Sequence[Sample], everything: Sequence[Sample], most: int, cut_too: bool
) -> Iterable[tuple[Sample, Sample]]:
    """For every prompt up to `most` pairs of a kept sample and a wrong one, each of them in one pair only, so that no
    answer is learnt from twice; kept and wrong texts differ.
    """
    whole = (one for one in everything if one.rollout.finish != "length" or cut_too)
    wrong = _of_prompts(one for one in whole if one.why == "wrong")
    for prompt, good in _of_prompts(kept).items():
        texts = {_plain(one) for one in good}
        bad = [one for one in _distinct(wrong[prompt]) if _plain(one) not in texts]
        yield from list(zip(_best(good, most), bad, strict=False))[:most]
