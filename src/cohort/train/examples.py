"""Stages that learn from what there is already, example by example: demonstrations, or preference pairs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from cohort.algorithms.objectives import Objective
from cohort.backends.base import Backend, open_backend
from cohort.environments import World
from cohort.learn.optimizer import rate_at
from cohort.machine import peak_memory_gb
from cohort.policy.policy import PolicyFacts
from cohort.seeds import derive_seed
from cohort.settings import Stage
from cohort.tasks import Ledger
from cohort.train.checkpoint import Checkpoint
from cohort.train.evaluation import Evaluator
from cohort.train.stage import Context, Prepared


class Lesson(Protocol):
    """What is learnt from, and how."""

    @property
    def size(self) -> int | None:
        """How many examples there are; None: without end."""

    def learn(self, backend: Backend, indices: Sequence[int], rate: float) -> tuple[dict[str, float], int]:
        """One optimizer step on these examples: its metrics, and how many tokens were seen."""

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
        world: World,
        per_step: int,
        open_lesson: Callable[[PolicyFacts], Lesson],
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
            stack.callback(world.close)
            if (parts := prepared.parts) is not None:
                stack.callback(parts.world.close)
            if checkpoint is not None:
                self._backend.load(checkpoint.path)
            self.facts: PolicyFacts = self._backend.facts
            self.policy = self._backend.policy
            self._lesson = open_lesson(self.facts)
            size, seed = self._lesson.size, derive_seed(context.seed, "ledger")
            state = checkpoint.ledger if checkpoint else None
            self._ledger = Ledger.restore(state, size, seed) if state else Ledger(size, seed)
            if parts is not None or context.suites:
                self._evaluator = Evaluator(context, parts, self.facts, self._backend.sampler, stack)
            self._opened = stack.pop_all()

    def step(self, step: int) -> dict[str, float]:
        """Learn from the next examples."""
        began = time.perf_counter()
        tickets = [self._ledger.issue() for _ in range(self._per_step)]
        rate = rate_at(self._stage.optimizer, self._stage.run.steps, step)
        metrics, seen = self._lesson.learn(self._backend, [ticket.index for ticket in tickets], rate)
        self.weights_of = step
        for ticket in tickets:
            self._ledger.finish(ticket.number, "trained")
        spent = time.perf_counter() - began
        return metrics | {
            "time/step_s": spent,
            "memory/peak_gb": peak_memory_gb(),
            "tokens_per_s": seen / spent,
        }

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
