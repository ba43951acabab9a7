"""A reward model: any Hugging Face sequence classifier scores the completions of a group in one batch.

Nothing here imports torch until a worker that has this reward starts; it then loads the model once and keeps it.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cohort.rewards.marks import costly, prepared_by, trl
from cohort.rewards.models.checkpoint import (
    ClassifierSettings,
    Row,
    batches,
    label_column,
    padded,
    padding_token,
    probability,
)
from cohort.rewards.models.text import FORM_KEY, Form, Reader, chat_tokens, messages_of, ordinary, specials
from cohort.types import UserError

__all__ = ["reward_model"]

_TEMPLATES = ("auto", "chat", "pair", "none")


def _prepare(**args: Any) -> None:
    _scorer(ClassifierSettings(**args))


@trl
@costly
@prepared_by(_prepare)
def reward_model(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    model: str,
    template: str = "auto",
    label: str | int | None = None,
    max_tokens: int = 0,
    too_long: str = "error",
    tokens_at_once: int = 16384,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> list[float]:
    """The scores of a group. `model` is a directory, a run directory or a hub id.

    template    how prompt and completion become tokens. chat: the tokenizer's chat template; pair: the tokenizer's own
                form for two texts; none: one after the other; auto: as the model was trained if Cohort trained it, else
                chat, pair or none, whichever the tokenizer has
    label       for a model of several labels: whose probability is the score. With one label the score is the logit
    max_tokens  the longest text that is scored (0: what the model takes); too_long: "error", or "truncate_left"
    tokens_at_once  padded tokens of one forward pass: a group with more is scored in several

    A score depends on its own text alone: batch neighbours change its last bits at most.
    """
    read = (max_tokens, too_long, tokens_at_once, dtype, device, revision, trust_remote_code)
    scorer = _scorer(ClassifierSettings(model, template, label, *read))
    answers = [text if isinstance(text, str) else str(text[-1]["content"]) for text in completions]
    return scorer.scores(prompts[0], answers) if answers else []


@functools.lru_cache(maxsize=4)
def _scorer(s: ClassifierSettings) -> _Scorer:
    """The scorer of a checkpoint, loaded once in a process."""
    s.check("the reward model", _TEMPLATES)
    model, tokenizer = s.load("AutoModelForSequenceClassification")
    form = getattr(model.config, FORM_KEY, None) if s.template == "auto" else None
    return _Scorer(
        model,
        tokenizer,
        _own_template(tokenizer) if s.template == "auto" else s.template,
        None if form is None else Reader(tokenizer, Form(**form)),
        specials(tokenizer),
        label_column(model.config, s.label, s.model),
        s.limit(model, tokenizer),
        s.too_long,
        s.tokens_at_once,
    )


@dataclass(frozen=True, slots=True)
class _Scorer:
    """A loaded classifier, and how it is asked."""

    model: Any
    tokenizer: Any
    template: str
    reader: Reader | None  # as Cohort trained it
    special: re.Pattern[str]
    column: int  # of the logits
    limit: int  # tokens
    too_long: str
    tokens_at_once: int

    def scores(self, prompt: Any, completions: Sequence[str]) -> list[float]:
        """One score a completion of the prompt."""
        import torch

        rows = [self._fit(row) for row in self._rows(prompt, completions)]
        pad, own = padding_token(self.model, rows), self.model.config.get_text_config().pad_token_id
        found = [math.nan] * len(rows)
        for part in batches([len(row["input_ids"]) for row in rows], 1 if pad is None else self.tokens_at_once):
            # The model reads its score at the last token that is not what its configuration calls padding.
            self.model.config.get_text_config().pad_token_id = pad
            with torch.inference_mode():
                logits = self.model(**padded([rows[i] for i in part], pad, self.model.device)).logits.float()
            for index, score in zip(part, probability(logits, self.column, self.model.config).tolist()):
                found[index] = score
        self.model.config.get_text_config().pad_token_id = own
        return found

    def _rows(self, prompt: Any, completions: Sequence[str]) -> list[Row]:
        """Prompt and completion as the model reads them."""
        if self.reader is not None:
            start = self.reader.prompt(prompt)
            return [{"input_ids": [*start, *self.reader.answer(completion)]} for completion in completions]
        answers = [ordinary(completion, self.special) for completion in completions]
        if self.template == "chat":
            turns = [[*messages_of(prompt), {"role": "assistant", "content": answer}] for answer in answers]
            return [{"input_ids": chat_tokens(self.tokenizer, chat, False)} for chat in turns]
        question = prompt if isinstance(prompt, str) else "\n\n".join(str(message["content"]) for message in prompt)
        written = [(question, answer) if self.template == "pair" else (question + answer,) for answer in answers]
        rows = [self.tokenizer(*parts) for parts in written]
        return [{key: row[key] for key in ("input_ids", "token_type_ids") if key in row} for row in rows]

    def _fit(self, row: Row) -> Row:
        """The row, cut on the left where that is wanted, behind its first token, which is often special."""
        length = len(row["input_ids"])
        if length == 0:
            raise UserError("a prompt and its completion have no tokens for the reward model; check its template")
        if length <= self.limit:
            return row
        if self.too_long == "error":
            raise UserError(
                f"a prompt and its completion have {length} tokens for the reward model, which takes {self.limit}: "
                'lower rollout.max_tokens, or set too_long = "truncate_left" in its args'
            )
        return {name: [*values[:1], *values[length - self.limit + 1 :]] for name, values in row.items()}


def _own_template(tokenizer: Any) -> str:
    if getattr(tokenizer, "chat_template", None):
        return "chat"
    return "pair" if tokenizer.sep_token is not None else "none"
