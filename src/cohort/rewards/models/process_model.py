"""A process reward model: a Hugging Face token classifier scores every step of the completions of a group.

The model reads the prompt, then each step with the separator behind it, as it was trained; a step's score is read at
the last token of its separator. Nothing here imports torch until a worker that has this reward starts.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cohort.rewards.marks import costly, prepared_by, stepwise, trl
from cohort.rewards.models.checkpoint import (
    ClassifierSettings,
    batches,
    label_column,
    padded,
    padding_token,
    probability,
)
from cohort.rewards.models.text import Form, Reader, ordinary, specials
from cohort.types import UserError

__all__ = ["process_model"]

_TEMPLATES = ("auto", "chat", "none")


def _prepare(separator: str, **args: Any) -> None:
    _scorer(ClassifierSettings(**args), separator)


@trl
@costly
@stepwise
@prepared_by(_prepare)
def process_model(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    steps: Sequence[Sequence[str]],
    model: str,
    template: str = "auto",
    separator: str = "\n",
    label: str | int | None = None,
    max_tokens: int = 0,
    too_long: str = "error",
    tokens_at_once: int = 16384,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
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
    read = (max_tokens, too_long, tokens_at_once, dtype, device, revision, trust_remote_code)
    scorer = _scorer(ClassifierSettings(model, template, label, *read), separator)
    return scorer.scores(prompts[0], steps) if completions else []


@functools.lru_cache(maxsize=4)
def _scorer(s: ClassifierSettings, separator: str) -> _StepScorer:
    """The scorer of a checkpoint, loaded once in a process."""
    s.check("process_model", _TEMPLATES)
    model, tokenizer = s.load("AutoModelForTokenClassification")
    chat = s.template == "chat" or (s.template == "auto" and bool(getattr(tokenizer, "chat_template", None)))
    label = 1 if s.label is None and model.config.num_labels == 2 else s.label
    return _StepScorer(
        model,
        Reader(tokenizer, Form() if chat else Form("{prompt}")),
        tuple(tokenizer.encode(separator, add_special_tokens=False)),
        specials(tokenizer),
        label_column(model.config, label, s.model),
        s.limit(model, tokenizer),
        s.too_long,
        s.tokens_at_once,
    )


@dataclass(frozen=True, slots=True)
class _StepScorer:
    """A loaded token classifier, and how it is asked."""

    model: Any
    reader: Reader
    separator: tuple[int, ...]
    special: re.Pattern[str]
    column: int
    limit: int
    too_long: str
    tokens_at_once: int

    def scores(self, prompt: Any, steps: Sequence[Sequence[str]]) -> list[list[float]]:
        """The scores of each completion's steps."""
        import torch

        start = self.reader.prompt(prompt)
        made = [self._row(start, texts) for texts in steps]
        rows = [{"input_ids": tokens} for tokens, _ in made]
        pad = padding_token(self.model, rows)
        found: list[list[float]] = [[] for _ in rows]
        for part in batches([len(tokens) for tokens, _ in made], 1 if pad is None else self.tokens_at_once):
            with torch.inference_mode():
                logits = self.model(**padded([rows[i] for i in part], pad, self.model.device)).logits.float()
            values = probability(logits, self.column, self.model.config)  # [b, T]
            for row, index in enumerate(part):
                found[index] = values[row, made[index][1]].tolist()
        return found

    def _row(self, start: Sequence[int], steps: Sequence[str]) -> tuple[list[int], list[int]]:
        """The tokens of a completion behind its prompt, and the places where its steps' scores are read."""
        tokens: list[int] = []
        ends: list[int] = []
        for step in steps:
            text = ordinary(step, self.special)
            tokens += [*self.reader.tokenizer.encode(text, add_special_tokens=False), *self.separator]
            ends.append(len(tokens) - 1)
        surplus = len(start) + len(tokens) - self.limit
        cut = max(surplus, 0) if self.too_long == "truncate_left" else 0
        if surplus > cut or cut > len(start):
            raise UserError(
                f"a prompt and its completion have {len(start) + len(tokens)} tokens for the process reward model, "
                f"which takes {self.limit}: lower rollout.max_tokens"
                + ("" if cut else ', or set too_long = "truncate_left" in its args')
            )
        kept = start[cut:]
        if len(kept) + ends[0] < 0:
            raise UserError('a step has no tokens for the process reward model: give it a separator, such as "\\n"')
        return [*kept, *tokens], [len(kept) + end for end in ends]
