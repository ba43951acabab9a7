"""Training a process reward model from steps with labels: the cross-entropy of each label, averaged over the steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cohort.chat import ordinary, specials
from cohort.evaluate import mean_interval
from cohort.policy.policy import PolicyFacts
from cohort.preflight.contamination import Report
from cohort.preflight.parts import SamplingParts
from cohort.rewards.models.reward_model import SEPARATOR
from cohort.rewards.models.text import Form, Reader
from cohort.settings import Stage
from cohort.tasks.prompts import Items, place_of
from cohort.tasks.steps import Solution, Solutions
from cohort.train.choosing import halves_of_pairs
from cohort.train.reward_model.scorer import Scorer
from cohort.train.reward_model.training import allowed
from cohort.train.stage import Context, first_texts
from cohort.types import UserError


@dataclass(frozen=True, slots=True)
class PreparedProcessModel:
    """All of a process_model stage that needs no model."""

    pairs: Solutions  # under the name that all that is learnt from and has held-out ones goes by
    parts: SamplingParts | None = None  # no completion is sampled
    dropped: Report | None = None  # what was found in the solutions that were left out

    def texts(self) -> Iterable[str]:
        """The first solutions."""
        return first_texts(self.pairs.train, lambda one: f"{one.prompt.question} {' '.join(one.steps)}")


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
        self._stage, self._solutions = stage, solutions
        self._reader, self._special = Reader(facts.tokenizer, form), specials(facts.tokenizer)
        self._encode = lambda text: facts.tokenizer.encode(text, add_special_tokens=False)
        self._room = facts.context or 2**31
        self.size = solutions.train.size

    def read(self, index: int) -> EncodedSolution | None:
        """Solution `index`; None where the `too_long` rule drops it."""
        return self._read(self._solutions.train, index, self._stage.task.too_long)

    def _read(self, solutions: Items[Solution], index: int, rule: str) -> EncodedSolution | None:
        one = solutions[index]
        prompt = self._reader.prompt(one.prompt.messages or one.prompt.question)
        answer: list[int] = []
        ends: list[int] = []
        for step in one.steps:
            answer += self._encode(ordinary(step.strip(), self._special)) + self._encode(SEPARATOR)
            ends.append(len(answer) - 1)
        limit = min(self._room - len(answer), self._stage.task.max_prompt_tokens or self._room)
        if len(prompt) > limit and rule == "drop":
            return None
        if len(prompt) > limit and (rule == "error" or limit < 1):
            raise UserError(
                f"{place_of(solutions, index, 'solution')} ({one.prompt.question[:40]!r}...) has {len(prompt)} + "
                f"{len(answer)} tokens; {allowed(self._room, self._stage.task)}. Shorten it, or say task.too_long = "
                '"drop" or "truncate_left".'
            )
        return EncodedSolution(tuple(prompt[-limit:]), tuple(answer), tuple(ends), one.labels)

    def units(self, items: Sequence[EncodedSolution]) -> int:
        """What the loss is a mean over: steps."""
        return sum(len(one.ends) for one in items)

    def loss(self, scorer: Scorer, items: Sequence[EncodedSolution]) -> tuple[Tensor, Tensor]:
        """The mean over the steps, and `[n, 2]`: the score and the label of each."""
        scores = self._scores(scorer, items)
        labels = torch.tensor([label for one in items for label in one.labels], device=scores.device)
        loss = F.binary_cross_entropy_with_logits(scores, labels)
        return loss, torch.stack([scores.detach(), labels], 1).cpu()

    def _scores(self, scorer: Scorer, items: Sequence[EncodedSolution]) -> Tensor:
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

    def measure(self, context: Context, scorer: Scorer, parts: Any, step: int) -> dict[str, float] | None:
        """How well it tells right steps of held-out solutions from wrong ones; None where none is held out."""
        held_out, rule = self._solutions.held_out, "drop" if self._stage.task.too_long == "error" else None
        if held_out is None or held_out.size is None:
            return None
        which = range(min(held_out.size, self._stage.evaluate.problems))
        read = [(i, self._read(held_out, i, rule or self._stage.task.too_long)) for i in which]
        known = [(held_out[i].prompt.id, one) for i, one in read if one is not None]
        if not known:
            return None
        with torch.no_grad():
            scores = torch.cat([self._scores(scorer, part).cpu() for part in parts([one for _, one in known])]).tolist()
        labels = [label for _, one in known for label in one.labels]
        asked = [name for name, one in known for _ in one.labels]  # steps of one question stay together
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
