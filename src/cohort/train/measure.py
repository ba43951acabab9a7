"""Stages that only measure (`kind = "evaluate"`): held-out problems and suites, of the model that comes in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.backends.base import open_backend
from cohort.policy.policy import PolicyFacts
from cohort.preflight.parts import SamplingParts, open_parts
from cohort.settings import Stage
from cohort.train.checkpoint import Checkpoint
from cohort.train.evaluation import Evaluator
from cohort.train.reject.data import leave_model
from cohort.train.sft import SUPERVISED, asked
from cohort.train.stage import Context, Plan, first_texts
from cohort.train.unread import NO_DEMONSTRATIONS, NO_GROUPS, NO_PAIRS
from cohort.types import Group, UserError
from cohort.views.plan import measure_plan


@dataclass(frozen=True, slots=True)
class PreparedMeasure:
    """What is asked, and who says what is right; None where nothing but suites is asked."""

    parts: SamplingParts | None

    def texts(self) -> Iterable[str]:
        """The first questions."""
        return () if self.parts is None else first_texts(self.parts.task.train, lambda prompt: prompt.question)


class Measure:
    """`kind = "evaluate"`, a `StageKind`. It takes no steps: what is measured stands at step 0."""

    tables = ("policy", "task", "rollout", "environment", "reward", "evaluate", "run")
    unread = (
        *(*NO_GROUPS, *NO_DEMONSTRATIONS, *NO_PAIRS, "task.curriculum", "task.adaptive", "policy.router_aux_coef"),
        *("run.evaluate_every", "run.keep_best", "run.stop"),
    )
    columns = ("eval/greedy",)
    makes_policy = True  # it leads on to the model that came in

    def prepare(self, stage: Stage, seed: int) -> PreparedMeasure:
        """The problems and the verifier, checked."""
        judged = bool(stage.reward) or stage.evaluate.reward is not None
        parts = open_parts(asked(stage), seed) if judged else None
        asks = parts is not None and parts.task.held_out is not None and stage.evaluate.problems
        if not asks and not stage.suite:
            missing = "holds nothing out: name problems with task.held_out, or add a [[suite]]"
            why = missing if judged else 'has nothing that says what is right: add evaluate.reward = "exact_number"'
            raise UserError(f"stage '{stage.name}' only evaluates, and {why}")
        return PreparedMeasure(parts)

    def plan(self, stage: Stage, prepared: PreparedMeasure, facts: PolicyFacts) -> Plan:
        """What is measured."""
        return measure_plan(stage, facts, None if prepared.parts is None else prepared.parts.task.held_out)

    def open(self, context: Context, prepared: PreparedMeasure, checkpoint: Checkpoint | None) -> Measuring:
        """See `StageKind`."""
        return Measuring(context, prepared)


class Measuring:
    """A `Training` that takes no step."""

    weights_of = 0
    groups: tuple[Group, ...] = ()

    def __init__(self, context: Context, prepared: PreparedMeasure):
        self._context = context
        with ExitStack() as stack:
            self._backend = open_backend(context.stage, SUPERVISED, context.origin(prepared, None))
            stack.callback(self._backend.close)
            self.facts: PolicyFacts = self._backend.facts
            self.policy = self._backend.policy
            if (parts := prepared.parts) is not None:
                stack.callback(parts.world.close)
                parts = parts if parts.task.held_out is not None and context.stage.evaluate.problems else None
            self._evaluator = Evaluator(context, parts, self.facts, self._backend.sampler, stack)
            self._opened = stack.pop_all()

    def step(self, step: int) -> Mapping[str, float]:
        """None is taken."""
        raise UserError("a stage of kind evaluate takes no steps: leave run.steps out")

    def evaluate(self, step: int) -> Mapping[str, float]:
        """Held-out accuracy, and the suites."""
        self._backend.publish(0)
        return self._evaluator(step)

    def save(self, directory: Path) -> Mapping[str, Any]:
        """There is nothing to go on with."""
        return {}

    def finish(self, directory: Path) -> None:
        """Which model was measured."""
        leave_model(self._context, self._backend, directory)

    def close(self) -> None:
        """End the workers and the tools."""
        self._opened.close()
