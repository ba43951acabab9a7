"""Reward models. Any Hugging Face sequence classifier scores the completions of a group in one batch; a process reward
model is a token classifier, which scores every step of the completions.

A process reward model reads the prompt, then each step with the separator behind it, as it was trained; a step's score
is read at the last token of its separator. Nothing here imports torch until a worker that has such a reward starts; it
then loads the model once and keeps it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cohort.chat import ChatTemplate, has_template, ordinary, template_for
from cohort.rewards.calling.parameters import with_fields_of
from cohort.rewards.marks import costly, prepared_by, stepwise, trl
from cohort.rewards.models.checkpoint import Classifier, ClassifierSettings, Row, label_column
from cohort.rewards.models.text import FORM_KEY, Form, Reader, answered, text_of
from cohort.types import UserError

__all__ = ["SEPARATOR", "process_model", "reward_model"]

SEPARATOR = "\n"  # behind a step, at whose last token its score is read


@functools.lru_cache(maxsize=4)
def _scorer(settings: ClassifierSettings) -> _Scorer:
    """The scorer of a checkpoint, loaded once in a process."""
    loaded = settings.open("AutoModelForSequenceClassification", "the reward model", ("auto", "chat", "pair", "none"))
    template, form = settings.template, None
    if template == "auto":
        form = getattr(loaded.model.config, FORM_KEY, None)
        plain = "pair" if loaded.tokenizer.sep_token is not None else "none"
        template = "chat" if has_template(loaded.tokenizer) else plain
    return _Scorer(
        loaded,
        template,
        None if form is None else Reader(loaded.tokenizer, Form(**form)),
        label_column(loaded.model.config, settings.label, settings.model),
    )


@trl
@costly
@prepared_by(lambda **args: _scorer(ClassifierSettings(**args)))
@with_fields_of(settings=ClassifierSettings)
def reward_model(prompts: Sequence[Any], completions: Sequence[Any], settings: ClassifierSettings) -> list[float]:
    """The scores of a group. `model` is a directory, a run directory or a hub id.

    template    how prompt and completion become tokens. chat: the tokenizer's chat template; pair: the tokenizer's own
                form for two texts; none: one after the other; auto: as the model was trained if Cohort trained it, else
                chat, pair or none, whichever the tokenizer has
    label       for a model of several labels: whose probability is the score. With one label the score is the logit
    max_tokens  the longest text that is scored (0: what the model takes); too_long: "error", or "truncate_left"
    tokens_at_once  padded tokens of one forward pass: a group with more is scored in several

    A score depends on its own text alone: batch neighbours change its last bits at most.
    """
    return _scorer(settings).scores(prompts[0], [text_of(text) for text in completions]) if completions else []


@dataclass(frozen=True, slots=True)
class _Scorer:
    """A loaded classifier of whole texts, and how a prompt with its completion is written for it."""

    loaded: Classifier
    template: str
    reader: Reader | None  # as Cohort trained it
    column: int  # of the logits

    def scores(self, prompt: Any, completions: Sequence[str]) -> list[float]:
        """One score a completion of the prompt."""
        return self.loaded.scores([self._fit(row) for row in self._rows(prompt, completions)], self.column)

    def _rows(self, prompt: Any, completions: Sequence[str]) -> list[Row]:
        """Prompt and completion as the model reads them."""
        if self.reader is not None:
            start = self.reader.prompt(prompt)
            return [{"input_ids": [*start, *self.reader.answer(completion)]} for completion in completions]
        tokenizer = self.loaded.tokenizer
        answers = [ordinary(completion, self.loaded.special) for completion in completions]
        if self.template == "chat":
            template = ChatTemplate(tokenizer)
            turns = [template.write(answered(prompt, answer, self.loaded.special), go_on=False) for answer in answers]
            return [{"input_ids": tokenizer.encode(turn, add_special_tokens=False)} for turn in turns]
        question = prompt if isinstance(prompt, str) else "\n\n".join(str(message["content"]) for message in prompt)
        question = ordinary(question, self.loaded.special) if self.template == "pair" else question
        written = [(question, answer) if self.template == "pair" else (question + answer,) for answer in answers]
        rows = [tokenizer(*parts) for parts in written]
        return [{key: row[key] for key in ("input_ids", "token_type_ids") if key in row} for row in rows]

    def _fit(self, row: Row) -> Row:
        """The row, cut on the left where that is wanted, behind its first token, which is often special."""
        length, limit = len(row["input_ids"]), self.loaded.limit
        if length == 0:
            raise UserError("a prompt and its completion have no tokens for the reward model; check its template")
        if length <= limit:
            return row
        if self.loaded.settings.too_long == "error":
            raise UserError(
                f"a prompt and its completion have {length} tokens for the reward model, which takes {limit}: "
                'lower rollout.max_tokens, or set too_long = "truncate_left" in its args'
            )
        return {name: [*values[:1], *values[length - limit + 1 :]] for name, values in row.items()}


@functools.lru_cache(maxsize=4)
def _step_scorer(settings: ClassifierSettings, separator: str) -> _StepScorer:
    """The scorer of a checkpoint, loaded once in a process."""
    loaded = settings.open("AutoModelForTokenClassification", "process_model", ("auto", "chat", "none"))
    tokenizer, config = loaded.tokenizer, loaded.model.config
    trained = getattr(config, FORM_KEY, None) if settings.template == "auto" else None
    chat = template_for(settings.template, tokenizer) == "chat"
    form = Form() if chat else Form("{prompt}")
    label = 1 if settings.label is None and config.num_labels == 2 else settings.label
    return _StepScorer(
        loaded,
        Reader(tokenizer, form if trained is None else Form(**trained)),
        tuple(tokenizer.encode(separator, add_special_tokens=False)),
        label_column(config, label, settings.model),
    )


@trl
@costly
@stepwise
@prepared_by(lambda separator, **args: _step_scorer(ClassifierSettings(**args), separator))
@with_fields_of(settings=ClassifierSettings)
def process_model(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    steps: Sequence[Sequence[str]],
    settings: ClassifierSettings,
    separator: str = SEPARATOR,
) -> list[list[float]]:
    """The scores of the steps of a group. `model` is a directory or a hub id.

    template    how the prompt becomes tokens: chat, the tokenizer's chat template; none, as it is; auto, as the model
                was trained if Cohort trained it, else chat where the tokenizer has a template
    separator   what the model was trained to see behind a step, and to give its score at; "": the step's own end
    label       whose probability is the score; of two labels the second when not given, as TRL trains such models. With
                one label the score is the logit
    max_tokens  the longest text that is scored (0: what the model takes); too_long: "error", or "truncate_left", which
                cuts the prompt
    """
    return _step_scorer(settings, separator).scores(prompts[0], steps) if completions else []


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
        found = self.loaded.scores([{"input_ids": tokens} for tokens, _ in made], self.column)
        return [[said[end] for end in ends] for said, (_, ends) in zip(found, made)]

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
