"""What was found, as data: by layer how many, which, and a few to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from cohort.preflight.contamination.texts import Question
from cohort.rewards.verifiers.text import normal_text
from cohort.wording import shorten


@dataclass(frozen=True, slots=True)
class Example:
    """A question, and a training prompt that it was found in. `shared`: the most words that both have in a row."""

    question: str
    prompt: str
    text: str
    shared: str
    share: float

    @staticmethod
    def of(question: Question, prompt: Question, share: float) -> Example:
        """The example, its texts cut to a line."""
        ours, theirs = (normal_text(one.text[:20_000]).split() for one in (question, prompt))
        same = SequenceMatcher(None, ours, theirs, autojunk=False).find_longest_match()
        shared = " ".join(ours[same.a : same.a + same.size])
        return Example(question.place, prompt.place, shorten(question.text), shorten(shared), round(float(share), 3))


@dataclass(frozen=True, slots=True)
class Finding:
    """What one layer found. `looked_at`: questions that are long enough for it. `ids` are those of the questions that
    were found, `prompt_ids` those of the training prompts in which they were; `prompts` is how many these are.
    """

    what: str
    weak: bool
    looked_at: int
    ids: tuple[str, ...]
    prompts: int
    prompt_ids: tuple[str, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What is found of `questions` questions of a benchmark in `prompts` training prompts, by layer.

    `not_looked` says of a layer, or of a side, why it was not looked at. `found_in` [F]: the numbers of the training
    prompts that hold one, weak findings apart.
    """

    benchmark: str
    questions: int
    prompts: int
    layers: Mapping[str, Finding]
    not_looked: Mapping[str, str] = field(default_factory=dict)
    found_in: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def flagged(self) -> tuple[str, ...]:
        """The ids of the questions that a layer found, weak findings apart, in their order."""
        return tuple(dict.fromkeys(key for one in self.layers.values() if not one.weak for key in one.ids))

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        layers = {name: {"questions": len(one.ids)} | asdict(one) for name, one in self.layers.items()}
        return {
            "benchmark": self.benchmark,
            "questions": self.questions,
            "prompts": self.prompts,
            "flagged": self.flagged,
            "prompts_flagged": len(self.found_in),
            "layers": layers,
            "not_looked": dict(self.not_looked),
        }
