"""How the scores of several rewards become the one reward of a completion.

    combination = Combination.of(rewards)
    combination.paid({"math": (1.0, 1.0), "think_format": (1.0, 0.0)})    # math gated: {"math": (1.0, 0.0), ...}
    combination.total(...)                                                # the weighted sum of what is paid

A missing score means the same here and in `cohort.algorithms`: a score that does not apply (NaN) is left out. It adds
nothing to the sum of its completion and is in no statistic. A completion to which no reward with a weight applies has
no reward (NaN), which is not a reward of 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cohort.types import RIGHT, UserError

if TYPE_CHECKING:
    from cohort.rewards.calling.reward import Reward

Scores = Mapping[str, Sequence[float]]
LARGEST = 1e150  # of a weighted score: what is larger has no square in float64, and a group of it no std


@dataclass(frozen=True, slots=True)
class Gate:
    """Pay a reward only where another reward, called `reward`, scores `at` or more. Elsewhere it pays 0 ("zero"), or
    counts as if it did not apply ("none"). Where the other reward does not apply, the gate is open.
    """

    reward: str
    at: float = RIGHT
    otherwise: Literal["zero", "none"] = "zero"


@dataclass(frozen=True, slots=True)
class Combination:
    """The weights and gates of a list of rewards, by name, in the order of the recipe."""

    weights: Mapping[str, float]
    gates: Mapping[str, Gate]

    @staticmethod
    def of(rewards: Iterable[Reward]) -> Combination:
        """The combination of resolved rewards."""
        rewards = tuple(rewards)
        gates = {reward.name: reward.gate for reward in rewards if reward.gate is not None}
        return Combination({reward.name: reward.weight for reward in rewards}, gates)

    def paid(self, scores: Scores) -> dict[str, tuple[float, ...]]:
        """The scores after the gates, still unweighted. GDPO's conditioned reward (2601.05242 eq. 8)."""
        paid = {name: tuple(values) for name, values in scores.items()}
        for name, shut in self.shut(scores).items():
            instead = 0.0 if self.gates[name].otherwise == "zero" else math.nan
            paid[name] = tuple(
                instead if closed and not math.isnan(score) else score for score, closed in zip(paid[name], shut)
            )
        return paid

    def shut(self, scores: Scores) -> dict[str, tuple[bool, ...]]:
        """For each gated reward, whether each completion's gate is shut (by NaN it is not)."""
        return {name: tuple(score < gate.at for score in scores[gate.reward]) for name, gate in self.gates.items()}

    def total(self, scores: Scores) -> tuple[float, ...]:
        """The reward of each completion: the weighted sum of what is paid, NaN where nothing applies."""
        return combine(self.paid(scores), self.weights)

    def accuracy(self, scores: Scores) -> tuple[float, ...]:
        """The scores that decide whether a group carries signal: those of the first reward that has a weight and
        applies to the group, as they are paid, after the gates; where none has a weight, of the first that applies.
        """
        return self.paid(scores)[self.deciding(scores)] if self.weights else ()

    @property
    def pays(self) -> bool:
        """Whether any reward has a weight."""
        return any(self.weights.values())

    def deciding(self, scores: Scores) -> str:
        """The name of the reward whose scores `accuracy` gives."""
        paid = self.paid(scores)
        names = [name for name, weight in self.weights.items() if weight or not self.pays]
        return next((name for name in names if not all(map(math.isnan, paid[name]))), names[-1])


def first_that_applies(candidates: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The first row of `candidates` in which any score applies; the last row if no score applies in any of them."""
    return tuple(next((row for row in candidates if not all(map(math.isnan, row))), candidates[-1]))


def combine(scores: Scores, weights: Mapping[str, float]) -> tuple[float, ...]:
    """The weighted sum of each completion's scores; scores that do not apply (NaN) are left out. The sum is NaN where
    no score with a weight applies. Raises UserError for a weighted score beyond `LARGEST`.
    """
    totals = []
    for components in zip(*scores.values(), strict=True):
        applied = [
            weights[name] * value
            for name, value in zip(scores, components, strict=True)
            if weights[name] and not math.isnan(value)
        ]
        if any(abs(value) > LARGEST for value in applied):
            named = (f"'{name}' {value:g} x {weights[name]:g}" for name, value in zip(scores, components, strict=True))
            raise UserError(
                f"the reward of a completion is more than {LARGEST:g} ({', '.join(named)}): float64 ends at the "
                "squares of such numbers; scale the rewards or their weights to a range near 1"
            )
        totals.append(math.fsum(applied) if applied else math.nan)
    return tuple(totals)
