"""Stages that learn from what there is already, example by example: demonstrations, or preference pairs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from cohort.algorithms.objectives import Objective
from cohort.backends.base import Backend, open_backend
from cohort.environments import World
from cohort.learn.optimizer import rate_at
from cohort.machine import peak_memory_gb
from cohort.policy.policy import PolicyFacts
from cohort.preflight.contamination import Report
from cohort.preflight.parts import SamplingParts
from cohort.seeds import derive_seed
from cohort.settings import Stage
from cohort.tasks import Ledger
from cohort.tasks.preferences import PreferencePair, Preferences
from cohort.tasks.steps import Solution, Solutions
from cohort.train.checkpoint import Checkpoint
from cohort.train.contamination import cleaned
from cohort.train.evaluation import Evaluator
from cohort.train.stage import Context, Prepared, first_texts, refuse_few

Rows = TypeVar("Rows", Preferences, Solutions)
Told = tuple[dict[str, float], int]  # of a step on examples: its metrics, and how many tokens were seen


@dataclass(frozen=True, slots=True)
class PreparedPairs(Generic[Rows]):
    """All that needs no model of a stage that learns from pairs, or from solutions, which go by that name here. `parts`
    are there where a reward says what is right.
    """

    pairs: Rows
    parts: SamplingParts | None = None
    dropped: Report | None = None  # what was found in the pairs that were left out

    def texts(self) -> Iterable[str]:
        """The first pairs."""
        return first_texts(self.pairs.train, _written)


def _written(one: PreferencePair | Solution) -> str:
    answers = one.steps if isinstance(one, Solution) else (one.chosen, one.rejected)
    return " ".join((one.prompt.question, *answers))


def prepared_pairs(stage: Stage, pairs: Rows, what: str, parts: SamplingParts | None = None) -> PreparedPairs[Rows]:
    """The pairs that a stage learns from, held-out questions left out as it says. Raises `UserError` where they are too
    few for a step; `what` they are called there.
    """
    prepared: PreparedPairs[Rows] = cleaned(stage, PreparedPairs(pairs, parts))
    wanted = stage.preferences.pairs_per_step
    refuse_few(prepared.pairs.train, what, "preferences.pairs_per_step", wanted)
    return prepared


def open_ledger(size: int | None, seed: int, state: Mapping[str, Any] | None) -> Ledger:
    """Which examples come next: from the first one on, or as a checkpoint has it."""
    return Ledger.restore(state, size, seed) if state else Ledger(size, seed)


def learn_next(ledger: Ledger, many: int, learn: Callable[[list[int]], Told]) -> dict[str, float]:
    """One step on the next so many examples: what `learn` says of it, and its time."""
    began = time.perf_counter()
    tickets = [ledger.issue() for _ in range(many)]
    metrics, seen = learn([ticket.index for ticket in tickets])
    for ticket in tickets:
        ledger.finish(ticket.number, "trained")
    spent = time.perf_counter() - began
    return metrics | {"time/step_s": spent, "memory/peak_gb": peak_memory_gb(), "tokens_per_s": seen / spent}


class Lesson(Protocol):
    """What is learnt from, and how."""

    @property
    def size(self) -> int | None:
        """How many examples there are; None: without end."""

    def learn(self, backend: Backend, indices: Sequence[int], rate: float) -> Told:
        """One optimizer step on these examples."""

    def measure(self, backend: Backend) -> dict[str, float]:
        """What of `eval/` the examples themselves tell; nothing where nothing of them is held out."""


class ExamplesTraining:
    """A `Training` on the examples of a lesson, `per_step` of them a step."""

    def __init__(
        self,
        context: Context,
        prepared: Prepared,
        checkpoint: Checkpoint | None,
        objective: Objective,
        per_step: int,
        open_lesson: Callable[[PolicyFacts], Lesson],
        world: World | None = None,
    ):
        stage, self._context, self._per_step = context.stage, context, per_step
        self._stage = stage
        self.weights_of = checkpoint.step if checkpoint else context.first
        # Log-probs of examples are those of the model itself, whatever temperature the stage samples at.
        plain = stage.with_(rollout={"temperature": 1.0})
        origin = context.origin(prepared, checkpoint)
        self._evaluator: Evaluator | None = None
        with ExitStack() as stack:
            self._backend = open_backend(plain, objective, origin)
            stack.callback(self._backend.close)
            if world is not None:
                stack.callback(world.close)
            if (parts := prepared.parts) is not None:
                stack.callback(parts.world.close)
            if checkpoint is not None:
                self._backend.load(checkpoint.path)
            self.facts: PolicyFacts = self._backend.facts
            self.policy = self._backend.policy
            self._lesson = open_lesson(self.facts)
            state = checkpoint.ledger if checkpoint else None
            self._ledger = open_ledger(self._lesson.size, derive_seed(context.seed, "ledger"), state)
            if parts is not None or context.suites:
                self._evaluator = Evaluator(context, parts, self.facts, self._backend.sampler, stack)
            self._opened = stack.pop_all()

    def step(self, step: int) -> dict[str, float]:
        """Learn from the next examples."""
        rate = rate_at(self._stage.optimizer, self._stage.run.steps, step)

        def learn(indices: Sequence[int]) -> Told:
            found = self._lesson.learn(self._backend, indices, rate)
            self.weights_of = step
            return found

        return learn_next(self._ledger, self._per_step, learn)

    def evaluate(self, step: int) -> Mapping[str, float] | None:
        """Held-out accuracy, where something says which answers are right, and what the lesson measures."""
        found = self._lesson.measure(self._backend)
        if self._evaluator is None:
            return found or None
        self._backend.publish(self.weights_of)
        return found | self._evaluator(step)

    def adapt(self, stage: Stage) -> None:
        """Another learning rate, from the next step on."""
        self._stage = stage

    def go_back(self, path: Path) -> None:
        """The weights of a checkpoint and its optimizer; examples go on."""
        self._backend.restore(path)

    def save(self, directory: Path) -> Mapping[str, Any]:
        """The model, what trains it, and the ledger."""
        self._backend.save(directory)
        return {"ledger": self._ledger.state()}

    def finish(self, directory: Path) -> None:
        """The trained model."""
        self._backend.save_model(directory)

    def close(self) -> None:
        """End the reward workers and the tools."""
        self._opened.close()
