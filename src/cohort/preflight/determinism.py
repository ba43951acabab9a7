"""What a repetition of a stage gives: one of three levels, and why it is no higher one.

bit-equal        the same recipe on the same machine, libraries and number of threads gives the same bits
batch-invariant  the same draws and the same gradient, but for the order in which numbers are added: a completion
                 depends on its own seed and a gradient is one sum, however the work was split
statistical      other draws of the same distribution
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cohort.settings import SAMPLED, Stage
from cohort.wording import counted

OUTSIDE = ("http", "mcp")  # tools whose answers are not the run's


class Determinism(NamedTuple):
    """A level, and the reason that keeps a stage from the highest."""

    level: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.level}: {self.why or 'the same machine, libraries and threads give the same bits again'}"


def determinism(stage: Stage, device: str) -> Determinism:
    """The level of a stage whose policy is on this device. Functions of one's own are taken to give the same again."""
    if reason := next(_other_draws(stage, device), None):
        return Determinism("statistical", reason)
    if stage.learners > 1:
        learners = counted(stage.learners, "learner")
        return Determinism("batch-invariant", f"{learners} add up their gradients in an order of their own")
    return Determinism("bit-equal")


def as_it_went(level: str, steps: Sequence[Mapping[str, Any]]) -> str:
    """The level of a stage that has these lines in metrics.jsonl: memory that ran out split its work."""
    ran_out = any("memory/tokens_at_once" in line for line in steps)
    return "batch-invariant" if level == "bit-equal" and ran_out else level


def _other_draws(stage: Stage, device: str) -> Iterator[str]:
    """What makes a repetition draw otherwise."""
    if device != "cpu":
        yield f"{device.partition(':')[0]} adds numbers in an order that changes from run to run"
    if stage.kind in SAMPLED:
        if stage.rollout.sampler != "local":
            yield f"what {stage.rollout.sampler} draws depends on what else it computes"
        if stage.environment.use == "endpoint":
            yield "an agent decides when it asks, and what"
        if stage.rollout.in_flight != "off":
            yield "between which tokens new weights come depends on who was quicker (rollout.in_flight)"
        if outside := [tool for tool in stage.environment.tools if tool in OUTSIDE]:
            yield f"the tool {outside[0]} answers as the world then is"
    if any(reward.use == "judge" for reward in stage.reward):
        yield "a judge at a server may answer otherwise"
    if any(teacher.url for teacher in stage.distillation.teacher.values()):
        yield "a teacher at a server adds numbers in an order that depends on what else it computes"
