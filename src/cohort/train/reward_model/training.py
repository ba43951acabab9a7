"""Training a reward model: from preference pairs, -log sigmoid(chosen - rejected - margin), averaged over the step; or
from another `Lesson`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import orjson
import torch
from torch import Tensor

from cohort.algorithms.losses import bradley_terry
from cohort.chat import template_for
from cohort.evaluate.pairs import PairReport, report_pairs
from cohort.learn.optimizer import clip_gradient, load_optimizer, lost_weights, open_optimizer, rate_at, save_optimizer
from cohort.machine import peak_memory_gb
from cohort.policy.load import open_policy, resumed_policy
from cohort.policy.policy import Policy, PolicyFacts
from cohort.rewards.models.text import Form, Reader
from cohort.seeds import derive_seed
from cohort.settings import Stage, Task
from cohort.tasks import R1_ZERO
from cohort.tasks.preferences import Pairs, Preferences
from cohort.tasks.prompts import Items, place_of
from cohort.tasks.steps import Solutions
from cohort.train.checkpoint import Checkpoint
from cohort.train.choosing import halves_of_pairs
from cohort.train.examples import open_ledger
from cohort.train.reward_model.scorer import EncodedPair, Scorer
from cohort.train.stage import Context, Prepared
from cohort.types import UserError
from cohort.views.reward_model import REPORT, show_report

_DROPPED_IN_A_ROW = 10_000


def form_of(task: Task, tokenizer: Any = None) -> Form:
    """How the task's template shows a prompt, for a tokenizer."""
    if template_for(task.template, tokenizer) == "chat":
        return Form(None, task.system, task.template_args)
    if task.template == "r1_zero":
        if task.system is not None:
            raise UserError('template = "r1_zero" brings its own instructions. Remove system, or use another template.')
        return Form(R1_ZERO)
    return Form("{prompt}" if task.system is None else f"{task.system}\n\n{{prompt}}")


class Asked:
    """The prompts of rows as tokens, where task.too_long and the positions of the model leave room for them."""

    def __init__(self, task: Task, facts: PolicyFacts, form: Form):
        self.reader, self._task, self._room = Reader(facts.tokenizer, form), task, facts.context or 2**31

    @property
    def most(self) -> str:
        """How long a text may be, for a sentence that refuses one."""
        own = self._task.max_prompt_tokens
        return f"the model has {self._room} positions" + (f", and task.max_prompt_tokens is {own}" if own else "")

    def before(self, answer: int, rows: Items[Any], index: int, what: str, unseen: bool) -> tuple[int, ...] | None:
        """The prompt of row `index`, before an answer of so many tokens; None where it is too long and dropped, as an
        `unseen` one, which is held out, always is, if it is not to be cut. Raises `UserError` where it is neither.
        """
        asked, rule = rows[index].prompt, self._task.too_long
        prompt = tuple(self.reader.prompt(asked.messages or asked.question))
        limit = min(self._room - answer, self._task.max_prompt_tokens or self._room)
        if len(prompt) <= limit:
            return prompt
        if rule == "drop" or (unseen and rule == "error"):
            return None
        if rule == "truncate_left" and limit > 0:
            return prompt[-limit:]
        raise UserError(
            f"{place_of(rows, index, what)} ({asked.question[:40]!r}...) has {len(prompt)} tokens in its prompt and "
            f'{answer} in its answer; {self.most}. Shorten it, or say task.too_long = "drop" or "truncate_left".'
        )


T = TypeVar("T", bound="Encoded")


class Encoded(Protocol):
    """What is learnt from, as tokens."""

    @property
    def tokens(self) -> int: ...  # noqa: D102


Held = tuple[str, T]  # of a held-out row the id of its prompt, and its tokens


class Lesson(Protocol[T]):
    """What a scorer learns from, and how."""

    asked: Asked

    @property
    def rows(self) -> Preferences | Solutions:
        """What is trained on, and what is held out."""

    def read(self, index: int, unseen: bool = False) -> T | None:
        """Number `index` as tokens, of those that are trained on or, `unseen`, held out; None where it is left out."""

    def units(self, items: Sequence[T]) -> int:
        """What the loss is a mean over."""

    def scores(self, scorer: Scorer, items: Sequence[T]) -> Tensor:
        """The scores of what these hold, in its order."""

    def loss(self, scorer: Scorer, items: Sequence[T]) -> tuple[Tensor, Tensor]:
        """The mean over the units, and what `told` needs of each `[n, 2]`."""

    def told(self, found: Tensor) -> dict[str, float]:
        """The numbers of a training step."""

    def measured(self, context: Context, step: int, held: list[Held[T]], scores: Any) -> dict[str, float]:
        """The measures of held-out rows, given the `scores` of all that they hold as a list."""


class PairLesson:
    """A `Lesson` of preference pairs."""

    def __init__(self, stage: Stage, pairs: Preferences, facts: PolicyFacts, form: Form):
        self._stage, self.rows = stage, pairs
        self.asked = Asked(stage.task, facts, form)

    def read(self, index: int, unseen: bool = False) -> EncodedPair | None:
        """See `Lesson`. A held-out pair whose answers are of equal tokens is left out."""
        pairs: Pairs | None = self.rows.held_out if unseen else self.rows.train
        assert pairs is not None
        pair = pairs[index]
        chosen, rejected = (tuple(self.asked.reader.answer(text)) for text in (pair.chosen, pair.rejected))
        longest = max(len(chosen), len(rejected))
        prompt = self.asked.before(longest, pairs, index, "preference pair", unseen)
        if prompt is None or (unseen and chosen == rejected):
            return None
        return EncodedPair(prompt, chosen, rejected, pair.margin)

    def units(self, items: Sequence[EncodedPair]) -> int:
        """Pairs."""
        return len(items)

    def scores(self, scorer: Scorer, items: Sequence[EncodedPair]) -> Tensor:
        """`[n, 2]`."""
        return scorer.scores(items)

    def loss(self, scorer: Scorer, items: Sequence[EncodedPair]) -> tuple[Tensor, Tensor]:
        """The mean over the pairs, and their scores."""
        scores = scorer.scores(items)  # [n, 2]
        margin = torch.tensor([pair.margin for pair in items], device=scores.device)
        loss = bradley_terry(scores[:, 0], scores[:, 1], margin, self._stage.preferences.centring)
        return loss, scores.detach().cpu()

    def told(self, found: Tensor) -> dict[str, float]:
        """How many pairs are told apart, and where scores lie."""
        gaps = found[:, 0] - found[:, 1]
        return {
            "pairs/accuracy": (gaps > 0).float().mean().item(),
            "pairs/gap": gaps.mean().item(),
            "scores/mean": found.mean().item(),
            "scores/std": found.std().item(),
        }

    def measured(self, context: Context, step: int, held: list[Held[EncodedPair]], scores: Any) -> dict[str, float]:
        """See `Lesson`. All of them are written down."""
        rows = [(*score, len(one.chosen), len(one.rejected)) for score, (_, one) in zip(scores, held, strict=True)]
        report = _report(rows)
        context.recorder.file(context.place / REPORT, orjson.dumps({"step": step, **report.as_dict()}), step)
        asked = [prompt for prompt, _ in held]  # pairs of one prompt stay together
        return report.metrics() | halves_of_pairs(rows, asked, self._stage.run, lambda part: _report(part).metrics())


class RewardModelTraining:
    """A `Training` of a scorer, on what `open_lesson` makes of the stage; with `steps` it scores steps."""

    policy: Policy | None = None  # what is trained is no policy, and nobody goes on with it as one

    def __init__(
        self,
        context: Context,
        prepared: Prepared,
        checkpoint: Checkpoint | None,
        open_lesson: Callable[[PolicyFacts, Form], Lesson[Any]],
        steps: bool = False,
    ):
        self._context, self._stage, self._steps = context, context.stage, steps
        self.weights_of = checkpoint.step if checkpoint else 0
        self._scorer = self._open_scorer(prepared, checkpoint)
        self.facts: PolicyFacts = self._scorer.policy.facts()
        self._lesson = open_lesson(self.facts, self._scorer.form)
        self._optimizer = open_optimizer(context.stage.optimizer, self._scorer.module)
        state = checkpoint.ledger if checkpoint else None
        self._ledger = open_ledger(self._lesson.rows.train.size, derive_seed(context.seed, "ledger"), state)
        self._taken: list[tuple[int, str]] = []  # tickets of the step under way, and how they end
        if checkpoint is not None:
            load_optimizer(self._optimizer, checkpoint.path)

    def step(self, step: int) -> dict[str, float]:
        """One update: its metrics."""
        began = time.perf_counter()
        pairs, dropped = self._next()
        rate = rate_at(self._stage.optimizer, self._stage.run.steps, step)
        metrics = self._update(pairs, rate)
        self.weights_of = step
        for ticket in self._taken:
            self._ledger.finish(*ticket)
        self._taken.clear()
        spent = time.perf_counter() - began
        tokens = sum(pair.tokens for pair in pairs)
        return metrics | {
            "lr": rate,
            "pairs/too_long": float(dropped),
            "tokens/trained": float(tokens),
            "time/step_s": spent,
            "tokens_per_s": tokens / spent,
            "memory/peak_gb": peak_memory_gb(),
        }

    def evaluate(self, step: int) -> dict[str, float] | None:
        """The measures of what is held out; None where nothing is, or none of it fits."""
        lesson, held_out = self._lesson, self._lesson.rows.held_out
        if held_out is None or held_out.size is None:
            return None
        which = range(min(held_out.size, self._stage.evaluate.problems))
        held = [(held_out[i].prompt.id, one) for i in which if (one := lesson.read(i, unseen=True)) is not None]
        if not held:
            return None
        with torch.no_grad():
            parts = self._parts([one for _, one in held])
            scores = torch.cat([lesson.scores(self._scorer, part).cpu() for part in parts]).tolist()
        return lesson.measured(self._context, step, held, scores)

    def adapt(self, stage: Stage) -> None:
        """Another learning rate, from the next step on."""
        self._stage = stage

    def go_back(self, path: Path) -> None:
        """The weights, the score and the optimizer of a checkpoint."""
        saved = resumed_policy(self._stage.policy, path)
        self._scorer.policy.module.load_state_dict(saved.module.state_dict())
        self._scorer.load_state(path)
        load_optimizer(self._optimizer, path)

    def save(self, directory: Path) -> Mapping[str, Any]:
        """The causal model, its score, the optimizer and the ledger."""
        self._scorer.save_state(directory)
        save_optimizer(self._optimizer, directory)
        return {"ledger": self._ledger.state()}

    def finish(self, directory: Path) -> None:
        """The classifier; what was measured last of pairs is printed."""
        if not self._steps:
            show_report(self._context.console, self._context.directory)
        self._scorer.save(directory)

    def close(self) -> None:
        """There is nothing to give back."""

    def _open_scorer(self, prepared: Prepared, checkpoint: Checkpoint | None) -> Scorer:
        context, table = self._context, self._stage.policy
        if checkpoint is not None:
            policy = resumed_policy(table, checkpoint.path)
        else:
            policy = open_policy(table, context.seed, context.start, prepared.texts)
        scorer = Scorer(policy, form_of(self._stage.task, policy.tokenizer), self._steps)
        if checkpoint is not None:
            scorer.load_state(checkpoint.path)
        else:
            scorer.take_head(table.revision)
        return scorer

    def _next(self) -> tuple[list[Any], int]:
        """What the next step learns from, and how many were dropped as too long on the way."""
        found: list[Any] = []
        dropped = in_a_row = 0
        while len(found) < self._stage.preferences.pairs_per_step:
            ticket = self._ledger.issue()
            one = self._lesson.read(ticket.index)
            self._taken.append((ticket.number, "trained" if one is not None else "too_long"))
            if one is not None:
                found.append(one)
                in_a_row = 0
                continue
            dropped, in_a_row = dropped + 1, in_a_row + 1
            # Twice as many as there are hold a whole pass.
            if in_a_row >= min(2 * (self._lesson.rows.train.size or _DROPPED_IN_A_ROW), _DROPPED_IN_A_ROW):
                how = f"{self._lesson.asked.most}. Shorten them, or raise the limit"
                raise UserError(f"{in_a_row:,} rows in a row were too long: {how}")
        return found, dropped

    def _update(self, items: Sequence[Any], rate: float) -> dict[str, float]:
        """One optimizer step; micro-batches add up to the mean over all of them."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        found: list[Tensor] = []
        total = 0.0
        for part in self._parts(items):
            loss, said = self._lesson.loss(self._scorer, part)
            loss = loss * (self._lesson.units(part) / self._lesson.units(items))
            loss.backward()
            total += loss.item()
            found.append(said)
        weights, tolerant = [*self._scorer.module.parameters()], self._stage.tolerant
        norm = clip_gradient(
            weights, self._stage.optimizer.gradient_clip, tolerant, mend="Lower optimizer.learning_rate."
        )
        if finite := norm < math.inf:
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        lost = {"policy/not_finite": float(lost_weights(weights))} if tolerant else {}
        told = self._lesson.told(torch.cat(found))
        return lost | {"loss": total if finite else math.nan, "grad_norm": norm} | told

    def _parts(self, items: Sequence[Any]) -> Iterator[list[Any]]:
        """Micro-batches of about `tokens_per_micro_batch` tokens, one item at least."""
        part: list[Any] = []
        for pair in items:
            limit = self._stage.optimizer.tokens_per_micro_batch
            if part and sum(other.tokens for other in part) + pair.tokens > limit:
                yield part
                part = []
            part.append(pair)
        if part:
            yield part


def _report(rows: Sequence[tuple[float, float, int, int]]) -> PairReport:
    """What `report_pairs` finds of held-out pairs: of each the scores and the lengths of its answers."""
    return report_pairs(*zip(*rows, strict=True))
