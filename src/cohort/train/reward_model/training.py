"""Training a reward model: from preference pairs, -log sigmoid(chosen - rejected - margin), averaged over the step; or
from another `Lesson`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import orjson
import torch
from torch import Tensor

from cohort.algorithms.losses import bradley_terry
from cohort.chat import template_for
from cohort.evaluate.pairs import PairReport, report_pairs
from cohort.learn.optimizer import clipped, load_optimizer, lost_weights, open_optimizer, rate_at, save_optimizer
from cohort.machine import peak_memory_gb
from cohort.policy.load import open_policy, resumed_policy
from cohort.policy.policy import Policy, PolicyFacts
from cohort.preflight.contamination import Report
from cohort.preflight.parts import SamplingParts
from cohort.rewards.models.text import Form, Reader
from cohort.seeds import derive_seed
from cohort.settings import Stage, Task
from cohort.tasks import R1_ZERO, Ledger
from cohort.tasks.preferences import Pairs, Preferences
from cohort.tasks.prompts import place_of
from cohort.train.checkpoint import Checkpoint
from cohort.train.choosing import halves_of_pairs
from cohort.train.reward_model.scorer import EncodedPair, Scorer
from cohort.train.stage import Context, Prepared, first_texts
from cohort.types import UserError
from cohort.views.reward_model import REPORT, show_report

_DROPPED_IN_A_ROW = 10_000


@dataclass(frozen=True, slots=True)
class PreparedRewardModel:
    """All of a reward-model stage that needs no model."""

    pairs: Preferences
    parts: SamplingParts | None = None  # no completion is sampled
    dropped: Report | None = None  # what was found in the pairs that were left out

    def texts(self) -> Iterable[str]:
        """The first pairs."""
        return first_texts(self.pairs.train, lambda pair: f"{pair.prompt.question} {pair.chosen} {pair.rejected}")


def form_of(task: Task, tokenizer: Any = None) -> Form:
    """How the task's template shows a prompt, for a tokenizer."""
    if template_for(task.template, tokenizer) == "chat":
        return Form(None, task.system, task.template_args)
    if task.template == "r1_zero":
        if task.system is not None:
            raise UserError('template = "r1_zero" brings its own instructions. Remove system, or use another template.')
        return Form(R1_ZERO)
    return Form("{prompt}" if task.system is None else f"{task.system}\n\n{{prompt}}")


def allowed(room: int, task: Task) -> str:
    """How long a text may be, for a sentence that refuses one."""
    own = f", and task.max_prompt_tokens is {task.max_prompt_tokens}" if task.max_prompt_tokens else ""
    return f"the model has {room} positions{own}"


T = TypeVar("T", bound="Encoded")


class Encoded(Protocol):
    """What is learnt from, as tokens."""

    @property
    def tokens(self) -> int: ...  # noqa: D102


Parts = Callable[[Sequence[T]], Iterator[list[T]]]  # micro-batches of these


class Lesson(Protocol[T]):
    """What a scorer learns from, and how."""

    size: int | None

    def read(self, index: int) -> T | None:
        """Number `index` as tokens; None where the `too_long` rule drops it."""

    def units(self, items: Sequence[T]) -> int:
        """What the loss is a mean over."""

    def loss(self, scorer: Scorer, items: Sequence[T]) -> tuple[Tensor, Tensor]:
        """The mean over the units, and what `told` needs of each `[n, 2]`."""

    def told(self, found: Tensor) -> dict[str, float]:
        """The numbers of a training step."""

    def measure(self, context: Context, scorer: Scorer, parts: Parts[T], step: int) -> dict[str, float] | None:
        """The measures of what is held out; None where nothing is."""


class PairLesson:
    """A `Lesson` of preference pairs."""

    def __init__(self, stage: Stage, pairs: Preferences, facts: PolicyFacts, form: Form):
        self._stage, self._pairs, self._task = stage, pairs, stage.task
        self._reader = Reader(facts.tokenizer, form)
        self._room = facts.context or 2**31
        self.size: int | None = pairs.train.size

    def read(self, index: int) -> EncodedPair | None:
        """See `Lesson`."""
        return self._read(self._pairs.train, index, self._task.too_long)

    def _read(self, pairs: Pairs, index: int, rule: str) -> EncodedPair | None:
        """Pair `index`. `rule` stands in for the task's `too_long`."""
        pair = pairs[index]
        found = EncodedPair(
            tuple(self._reader.prompt(pair.prompt.messages or pair.prompt.question)),
            tuple(self._reader.answer(pair.chosen)),
            tuple(self._reader.answer(pair.rejected)),
            pair.margin,
        )
        longest = max(len(found.chosen), len(found.rejected))
        limit = min(self._room - longest, self._task.max_prompt_tokens or self._room)
        if len(found.prompt) <= limit:
            return found
        if rule == "drop":
            return None
        if rule == "truncate_left" and limit > 0:
            return replace(found, prompt=found.prompt[-limit:])
        raise UserError(
            f"{place_of(pairs, index, 'preference pair')} ({pair.prompt.question[:40]!r}...) has {len(found.prompt)} "
            f"tokens in its prompt and {longest} in its longer answer; {allowed(self._room, self._task)}. Shorten it, "
            'or say task.too_long = "drop" or "truncate_left".'
        )

    def units(self, items: Sequence[EncodedPair]) -> int:
        """Pairs."""
        return len(items)

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

    def measure(
        self, context: Context, scorer: Scorer, parts: Parts[EncodedPair], step: int
    ) -> dict[str, float] | None:
        """The measures of the held-out pairs; None when there is none that fits and whose answers differ."""
        source, wanted = self._pairs.held_out, self._stage.evaluate.problems
        if source is None:
            return None
        rule = "drop" if self._task.too_long == "error" else self._task.too_long
        read = [(i, self._read(source, i, rule)) for i in range(min(source.size, wanted))]
        known = [(i, pair) for i, pair in read if pair is not None and pair.chosen != pair.rejected]
        if not known:
            return None
        pairs = [pair for _, pair in known]
        with torch.no_grad():
            scores = torch.cat([scorer.scores(part).cpu() for part in parts(pairs)]).tolist()
        rows = [(*score, len(p.chosen), len(p.rejected)) for score, p in zip(scores, pairs, strict=True)]
        report = _report(rows)
        content = orjson.dumps({"step": step, **report.as_dict()})
        context.recorder.file(context.place / REPORT, content, step)
        asked = [source[i].prompt.id for i, _ in known]  # pairs of one prompt stay together
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
        order = (self._lesson.size, derive_seed(context.seed, "ledger"))
        state = checkpoint.ledger if checkpoint else None
        self._ledger = Ledger.restore(state, *order) if state else Ledger(*order)
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
        """The measures of what is held out."""
        return self._lesson.measure(self._context, self._scorer, self._parts, step)

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
            scorer = Scorer(policy, form_of(self._stage.task, policy.tokenizer), self._steps)
            scorer.load_state(checkpoint.path)
            return scorer
        policy = open_policy(table, context.seed, context.start, prepared.texts)
        scorer = Scorer(policy, form_of(self._stage.task, policy.tokenizer), self._steps)
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
            if in_a_row >= min(2 * (self._lesson.size or _DROPPED_IN_A_ROW), _DROPPED_IN_A_ROW):
                raise UserError(
                    f"{in_a_row:,} rows in a row were too long: "
                    f"{allowed(self.facts.context or 2**31, self._stage.task)}. Shorten them, or raise the limit"
                )
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
        norm = clipped(weights, self._stage.optimizer.gradient_clip, tolerant, mend="Lower optimizer.learning_rate.")
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
