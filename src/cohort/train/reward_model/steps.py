"""Training a process reward model from steps with labels: the cross-entropy of each label, averaged over the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cohort.chat import ordinary, specials
from cohort.evaluate import mean_interval
from cohort.policy.policy import PolicyFacts
from cohort.rewards.models.reward_model import SEPARATOR
from cohort.rewards.models.text import Form
from cohort.settings import Stage
from cohort.tasks.steps import Solutions
from cohort.train.choosing import halves_of_pairs
from cohort.train.reward_model.scorer import Scorer
from cohort.train.reward_model.training import Asked, Held
from cohort.train.stage import Context


@dataclass(frozen=True, slots=True)
class EncodedSolution:
    """A solution as tokens: of every step its text and the separator, at whose last token its score is read."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    ends: tuple[int, ...]
    labels: tuple[float, ...]

    @property
    def tokens(self) -> int:
        """What a forward pass over it costs."""
        return len(self.prompt) + len(self.answer)


class StepLesson:
    """A `Lesson` of solutions whose steps have labels."""

    def __init__(self, stage: Stage, solutions: Solutions, facts: PolicyFacts, form: Form):
        self._stage, self.rows = stage, solutions
        self.asked, self._special = Asked(stage.task, facts, form), specials(facts.tokenizer)
        self._encode = lambda text: facts.tokenizer.encode(text, add_special_tokens=False)

    def read(self, index: int, unseen: bool = False) -> EncodedSolution | None:
        """See `Lesson`."""
        solutions = self.rows.held_out if unseen else self.rows.train
        assert solutions is not None
        one = solutions[index]
        answer: list[int] = []
        ends: list[int] = []
        for step in one.steps:
            answer += self._encode(ordinary(step.strip(), self._special)) + self._encode(SEPARATOR)
            ends.append(len(answer) - 1)
        prompt = self.asked.before(len(answer), solutions, index, "solution", unseen)
        return None if prompt is None else EncodedSolution(prompt, tuple(answer), tuple(ends), one.labels)

    def units(self, items: Sequence[EncodedSolution]) -> int:
        """What the loss is a mean over: steps."""
        return sum(len(one.ends) for one in items)

    def loss(self, scorer: Scorer, items: Sequence[EncodedSolution]) -> tuple[Tensor, Tensor]:
        """The mean over the steps, and `[n, 2]`: the score and the label of each."""
        scores = self.scores(scorer, items)
        labels = torch.tensor([label for one in items for label in one.labels], device=scores.device)
        loss = F.binary_cross_entropy_with_logits(scores, labels)
        return loss, torch.stack([scores.detach(), labels], 1).cpu()

    def scores(self, scorer: Scorer, items: Sequence[EncodedSolution]) -> Tensor:
        """`[steps]`: the scores of all steps, as log-odds."""
        rows = [one.answer for one in items]
        places = [(row, end) for row, one in enumerate(items) for end in one.ends]
        return scorer.at([one.prompt for one in items], rows, [*range(len(items))], places)

    def told(self, found: Tensor) -> dict[str, float]:
        """The numbers of a step's scores and labels, `[n, 2]`."""
        scores, labels = found.unbind(1)
        return {
            "steps/accuracy": ((scores > 0) == (labels >= 0.5)).float().mean().item(),
            "steps/right": (labels >= 0.5).float().mean().item(),
            "scores/mean": scores.mean().item(),
            "scores/std": scores.std(unbiased=False).item(),
        }

    def measured(self, context: Context, step: int, held: list[Held[EncodedSolution]], scores: Any) -> dict[str, float]:
        """How well it tells right steps of held-out solutions from wrong ones."""
        labels = [label for _, one in held for label in one.labels]
        asked = [prompt for prompt, one in held for _ in one.labels]  # steps of one question stay together
        rows = [*zip(scores, labels, asked, strict=True)]
        return _measures(rows) | halves_of_pairs(rows, asked, self._stage.run, _measures)


def _measures(rows: Sequence[tuple[float, float, str]]) -> dict[str, float]:
    scores, labels, asked = zip(*rows, strict=True)
    right = [float((score > 0) == (label >= 0.5)) for score, label in zip(scores, labels, strict=True)]
    low, high = mean_interval(right, asked)
    # -label log sigmoid(s) - (1 - label) log sigmoid(-s)
    lost = [max(s, 0.0) - s * label + math.log1p(math.exp(-abs(s))) for s, label in zip(scores, labels, strict=True)]
    return {
        "eval/steps": float(len(rows)),
        "eval/accuracy": math.fsum(right) / len(rows),
        "eval/accuracy_low": low,
        "eval/accuracy_high": high,
        "eval/loss": math.fsum(lost) / len(rows),
        "eval/steps_right": math.fsum(label >= 0.5 for label in labels) / len(rows),
    }
