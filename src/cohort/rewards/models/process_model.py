"""A process reward model: a Hugging Face token classifier scores every step of the completions of a group.

The model reads the prompt, then each step with the separator behind it, as it was trained; a step's score is read at
the last token of its separator. Nothing here imports torch until a worker that has this reward starts.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cohort.rewards.calling.parameters import with_fields_of
from cohort.rewards.marks import costly, prepared_by, stepwise, trl
from cohort.rewards.models.checkpoint import Classifier, ClassifierSettings, label_column
from cohort.rewards.models.text import Form, Reader, ordinary
from cohort.types import UserError

__all__ = ["process_model"]

_TEMPLATES = ("auto", "chat", "none")


def _prepare(separator: str, **args: Any) -> None:
    _scorer(ClassifierSettings(**args), separator)


@trl
@costly
@stepwise
@prepared_by(_prepare)
@with_fields_of(settings=ClassifierSettings)
def process_model(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    steps: Sequence[Sequence[str]],
    settings: ClassifierSettings,
    separator: str = "\n",
) -> list[list[float]]:
    """The scores of the steps of a group. `model` is a directory or a hub id.

    template    how the prompt becomes tokens: chat, the tokenizer's chat template; none, as it is; auto, chat where the
                tokenizer has a template
    separator   what the model was trained to see behind a step, and to give its score at; "": the step's own end
    label       whose probability is the score; of two labels the second when not given, as TRL trains such models. With
                one label the score is the logit
    max_tokens  the longest text that is scored (0: what the model takes); too_long: "error", or "truncate_left", which
                cuts the prompt
    """
    return _scorer(settings, separator).scores(prompts[0], steps) if completions else []


@functools.lru_cache(maxsize=4)
def _scorer(settings: ClassifierSettings, separator: str) -> _StepScorer:
    """The scorer of a checkpoint, loaded once in a process."""
    loaded = settings.open("AutoModelForTokenClassification", "process_model", _TEMPLATES)
    tokenizer, config = loaded.tokenizer, loaded.model.config
    has_template = bool(getattr(tokenizer, "chat_template", None))
    chat = settings.template == "chat" or (settings.template == "auto" and has_template)
    label = 1 if settings.label is None and config.num_labels == 2 else settings.label
    return _StepScorer(
        loaded,
        Reader(tokenizer, Form() if chat else Form("{prompt}")),
        tuple(tokenizer.encode(separator, add_special_tokens=False)),
        label_column(config, label, settings.model),
    )


@dataclass(frozen=True, slots=True)
class _StepScorer:
    """A loaded classifier of tokens, and how a prompt and the steps behind it are written for it."""

    loaded: Classifier
    reader: Reader
    separator: tuple[int, ...]
    column: int

    def scores(self, prompt: Any, steps: Sequence[Sequence[str]]) -> list[list[float]]:
        """The scores of each completion's steps."""
        start = self.reader.prompt(prompt)
        made = [self._row(start, texts) for texts in steps]
        found: list[list[float]] = [[] for _ in made]
        for part, values in self.loaded.scores([{"input_ids": tokens} for tokens, _ in made], self.column):  # [b, T]
            for row, index in enumerate(part):
                found[index] = values[row, made[index][1]].tolist()
        return found

    def _row(self, start: Sequence[int], steps: Sequence[str]) -> tuple[list[int], list[int]]:
        """The tokens of a completion behind its prompt, and the places where its steps' scores are read."""
        tokens: list[int] = []
        ends: list[int] = []
        for step in steps:
            text = ordinary(step, self.loaded.special)
            tokens += [*self.reader.tokenizer.encode(text, add_special_tokens=False), *self.separator]
            ends.append(len(tokens) - 1)
        limit = self.loaded.limit
        surplus = len(start) + len(tokens) - limit
        cut = max(surplus, 0) if self.loaded.settings.too_long == "truncate_left" else 0
        if surplus > cut or cut > len(start):
            raise UserError(
                f"a prompt and its completion have {len(start) + len(tokens)} tokens for the process reward model, "
                f"which takes {limit}: lower rollout.max_tokens"
                + ("" if cut else ', or set too_long = "truncate_left" in its args')
            )
        kept = start[cut:]
        if len(kept) + ends[0] < 0:
            raise UserError('a step has no tokens for the process reward model: give it a separator, such as "\\n"')
        return [*kept, *tokens], [len(kept) + end for end in ends]
