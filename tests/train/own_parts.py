"""Parts of a run that a person brings along, named in a recipe as `own_parts:NAME`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import orjson
import torch

from cohort.engine.engine import Engine
from cohort.policy.load import open_policy, resumed_policy, save_policy
from cohort.policy.policy import Policy, PolicyFacts
from cohort.preflight.parts import SamplingParts
from cohort.settings import Rollout, Stage
from cohort.train.checkpoint import Checkpoint
from cohort.train.stage import Context, Plan
from cohort.types import Completion, SampleRequest, UserError


@dataclass(frozen=True)
class PreparedShrink:
    """All of the stage that needs no model: the factor."""

    factor: float
    parts: SamplingParts | None = None

    def texts(self) -> Iterable[str]:
        return ["one two three"]


class Shrink:
    """A kind of stage: multiplies every matrix by a number at every step."""

    tables = ("policy", "task", "optimizer", "run")
    columns = ("largest",)
    makes_policy = True

    def prepare(self, stage: Stage, seed: int) -> PreparedShrink:
        if stage.optimizer.learning_rate >= 1:
            raise UserError("optimizer.learning_rate must be below 1, or nothing is left")
        return PreparedShrink(1 - stage.optimizer.learning_rate)

    def plan(self, stage: Stage, prepared: PreparedShrink, facts: PolicyFacts) -> Plan:
        return {"shrink": f"by {prepared.factor:g} at each of {stage.run.steps} steps, {facts.parameters} parameters"}

    def open(self, context: Context, prepared: PreparedShrink, checkpoint: Checkpoint | None) -> Shrinking:
        return Shrinking(context, prepared, checkpoint)


class Shrinking:
    """The stage under way."""

    def __init__(self, context: Context, prepared: PreparedShrink, checkpoint: Checkpoint | None):
        table, origin = context.stage.policy, context.origin(prepared, checkpoint)
        self.policy: Policy = (
            open_policy(table, origin.seed, origin.start, origin.texts)
            if checkpoint is None
            else resumed_policy(table, checkpoint.path)
        )
        self.facts: PolicyFacts = self.policy.facts()
        self.weights_of = checkpoint.step if checkpoint else 0
        self._factor, self._context = prepared.factor, context
        self._done = checkpoint.state["done"] if checkpoint else 0

    @torch.no_grad()
    def step(self, step: int) -> Mapping[str, float]:
        for parameter in self.policy.module.parameters():
            if parameter.dim() == 2:
                parameter.mul_(self._factor)
        self.weights_of = step
        self._done += 1
        return {"largest": self._largest(), "done": float(self._done)}

    def evaluate(self, step: int) -> Mapping[str, float] | None:
        return {"eval/largest": self._largest()}

    def save(self, directory: Path) -> Mapping[str, Any]:
        save_policy(self.policy, directory)
        return {"done": self._done}

    def finish(self, directory: Path) -> None:
        save_policy(self.policy, directory)

    def close(self) -> None:
        (self._context.directory / "closed").touch()

    def _largest(self) -> float:
        return max(
            parameter.abs().max().item() for parameter in self.policy.module.parameters() if parameter.dim() == 2
        )


class CountingSampler:
    """The engine of this process, which counts the groups that it is asked for, and notes what is published."""

    opened: ClassVar[list[CountingSampler]] = []

    def __init__(self, policy: Policy, rollout: Rollout):
        self._engine = Engine(policy, max_rows=rollout.max_rows)
        self.groups = 0
        self.published: list[int] = []
        self.opened.append(self)

    @property
    def version(self) -> int:
        return self._engine.version

    def sample(self, requests: Iterable[SampleRequest]) -> Iterator[tuple[SampleRequest, tuple[Completion, ...]]]:
        wanted = tuple(requests)
        self.groups += len(wanted)
        return self._engine.sample(wanted)

    def publish(self, version: int) -> None:
        self.published.append(version)
        self._engine.publish(version)


def open_counting_sampler(policy: Policy, rollout: Rollout) -> CountingSampler:
    return CountingSampler(policy, rollout)


class Lines:
    """A tracker that writes one line a step."""

    def __init__(self, directory: Path, recorded: int):
        self._file = (directory / "lines.jsonl").open("ab")
        self._write({"recorded": recorded})

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        self._write({"step": step, **metrics})

    def close(self) -> None:
        self._write({"closed": True})
        self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(orjson.dumps(line) + b"\n")


class Breaks:
    """A tracker whose server goes away at step 2."""

    def __init__(self, directory: Path, recorded: int):
        self._calls = directory / "calls"

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        with self._calls.open("a") as file:
            file.write(f"{step}\n")
        if step == 2:
            raise ConnectionError("the server is gone")

    def close(self) -> None:
        raise ConnectionError("the server is still gone")


def does_not_start(directory: Path, recorded: int) -> Lines:
    raise ValueError("no key of this service is set")


not_a_kind = ("policy",)


class AsksForMore(Shrink):
    """A kind that is not made without arguments."""

    def __init__(self, factor: float):
        self.factor = factor


class Unfinished(Shrink):
    """A kind whose training lacks half of what a training is."""

    def open(self, context: Context, prepared: PreparedShrink, checkpoint: Checkpoint | None) -> Any:
        return Lines(context.directory, 0)
