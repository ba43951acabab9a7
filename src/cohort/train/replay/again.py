"""A stage trained again from its stored rollouts: nothing is sampled, nothing is scored, all else is as it was.

The one loop does it, with the groups of the log in place of a stream of new ones. Learning from all steps after a
checkpoint ends with the bits of the run; learning from some of them says which one did what.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from cohort.machine import describe_machine
from cohort.record.chain import Chain
from cohort.record.files import write_bytes
from cohort.record.keys import own_key
from cohort.record.metrics import is_timing, read_metrics
from cohort.rewards import ScoredGroup
from cohort.settings import Monitor
from cohort.train.checkpoint import Checkpoint, checkpoint_of
from cohort.train.directory import ENVIRONMENT, as_kept, disk_errors, has_begun, locked
from cohort.train.grpo.stream import Outcome, StepGroups
from cohort.train.loop import train_stage
from cohort.train.recorder import Recorder
from cohort.train.replay.advantages import bare
from cohort.train.replay.opened import Recorded
from cohort.train.replay.stored import StoredStep, erased_in
from cohort.train.replay.tally import equal
from cohort.train.replay.weights import unlike
from cohort.train.stage import Context, kind_of
from cohort.types import Group, InfrastructureError, UnreadableError, UserError
from cohort.views.console import Console


@dataclass(frozen=True, slots=True)
class Again:
    """What came of it. `same` is whether all numbers and weights are those of the run, None where they need not be, as
    steps were left out; `differences` name the first that are not.
    """

    run: str
    directory: Path
    start: int
    steps: tuple[int, int]
    compared: int
    same: bool | None
    differences: tuple[str, ...]


class StoredGroups:
    """The groups of a log as a source of groups. A `Groups` and its own `Numbers`: no prompt is consumed."""

    def __init__(self, read: Callable[[int], StoredStep]):
        self._read = read

    @property
    def ledger(self) -> StoredGroups:
        """This object, which keeps no account of prompts."""
        return self

    def metrics(self) -> dict[str, float]:
        """Nothing."""
        return {}

    def state(self) -> Mapping[str, Any]:
        """Nothing: a run that begins from such a checkpoint begins its prompts anew."""
        return {}

    def next(self, step: int) -> StepGroups:
        """The groups of a step as they were before it learnt from them."""
        stored = self._read(step)
        outcomes = [_outcome(group) for group in stored.groups]
        return StepGroups([bare(group) for group in stored.kept], list(stored.left_out), outcomes)

    def finish(self, groups: StepGroups) -> None:
        """Nothing to do."""

    def in_flight(self) -> Sequence[Group]:
        """No group is in flight: none is sampled."""
        return ()


def _outcome(group: Group) -> Outcome:
    """What became of the scoring of a group, but for the time that it took."""
    if group.error is not None:
        return InfrastructureError(group.error)
    seconds = dict.fromkeys(group.scores, math.nan)
    return ScoredGroup(group.scores, seconds, group.rewards, group.labels, extra=group.extra)


def learn_again(
    recorded: Recorded, start: int, steps: tuple[int, int] | None, to: Path | None, console: Console
) -> Again:
    """Train from the checkpoint of step `start` (0: the stage's beginning) on the stored rollouts of `steps`, first and
    last, by default all later ones, into a new directory. Raises `UserError` where that is impossible.
    """
    first, last = steps or (start + 1, max(recorded.steps, default=0))
    checkpoint = _begins_from(recorded, start)
    _refuse_missing(recorded, start, first, last)
    whole = first == start + 1
    directory = _free(recorded, start, steps) if to is None else to.expanduser().absolute()
    stage = recorded.stage.with_(
        # Nobody asks the sampler, and where steps are left out the weights are not those that drew the rollouts.
        rollout={"sampler": "local", "max_mismatch": math.inf},
        monitor=Monitor(action="log"),  # what was found then was said then
    )
    kind = kind_of(stage)
    prepared = replace(kind.prepare(stage, recorded.seed), stored=StoredGroups(recorded.read))
    recipe = recorded.recipe.placed(directory)
    with locked(directory) as still_here, disk_errors(directory, still_here), recorded.as_it_ran():
        if has_begun(directory):
            raise UserError(f"{directory} already holds a run: name another directory with --to")
        chain = Chain.open(directory, own_key(directory), console.warn, anew=True)
        _write_down(recorded, directory, as_kept(recipe), start, (first, last))
        context = Context(
            recipe=recipe,
            stage=stage,
            title=f"{recorded.recipe.name}: steps {first} to {last} again",
            seed=recorded.seed,
            directory=directory,
            console=console,
            start=recorded.start,
            recorder=Recorder(chain, directory),
            check=still_here,
            parent=None if checkpoint is None else replace(checkpoint, step=first - 1),
            first=first - 1,
            until=last,
            did=tuple(recorded.findings),
        )
        train_stage(kind, prepared, context)
    compared, differences = _compare(recorded, directory, first, last) if whole else (0, [])
    same = not differences if whole else None
    return Again(str(recorded.run), directory, start, (first, last), compared, same, tuple(differences))


def _begins_from(recorded: Recorded, start: int) -> Checkpoint | None:
    if start:
        return checkpoint_of(recorded.directory / "checkpoints", start, "; --from 0 is the start")
    if recorded.environment.get("parent"):
        raise UnreadableError(f"{recorded.run} begins from another run's checkpoint: --from names one of its own")
    return None


def _refuse_missing(recorded: Recorded, start: int, first: int, last: int) -> None:
    if not start < first <= last:
        what = f"--steps {first}..{last} does not lie behind it" if last else "there are no rollouts"
        raise UnreadableError(f"nothing can be learnt from step {start} on: {what}")
    if missing := [step for step in range(first, last + 1) if step not in recorded.steps]:
        raise UserError(
            f"{recorded.directory / 'log'} has no rollouts of step {missing[0]}, so steps {first} to {last} cannot be "
            "learnt again (run.save_rollouts keeps them)"
        )
    back = [one.step for one in recorded.findings if any(map(one.went_back, range(first, last + 1)))]
    if back:
        raise UserError(
            f"after step {back[0]} the run went back to earlier weights, so steps {first} to {last} are no one way to "
            f"learn: end with --steps {first}..{back[0] - 1}, or begin with --from {back[0]}"
        )
    for step in range(first, last + 1):
        if erased := erased_in(recorded.steps[step]):
            which = ", ".join(map(str, erased))
            raise UserError(f"step {step} cannot be learnt again: texts of ticket {which} were erased")


def _free(recorded: Recorded, start: int, steps: tuple[int, int] | None) -> Path:
    """A directory beside the run that is not there yet."""
    name = f"{recorded.run.name}-from-{start}" + (f"-steps-{steps[0]}-{steps[1]}" if steps else "")
    number, place = 1, recorded.run.with_name(name)
    while place.exists():
        number += 1
        place = recorded.run.with_name(f"{name}-{number}")
    return place


def _write_down(recorded: Recorded, directory: Path, recipe: str, start: int, steps: tuple[int, int]) -> None:
    """recipe.toml and environment.json: those of the run, this machine, and that nothing was sampled."""
    learnt = {"run": str(recorded.run), "stage": recorded.stage.name, "from": start, "steps": list(steps)}
    own = {**describe_machine(), "directory": os.getcwd(), "learnt_again": learnt}
    content = {**recorded.environment, **own}
    write_bytes(directory / ENVIRONMENT, orjson.dumps(content, option=orjson.OPT_INDENT_2))
    write_bytes(directory / "recipe.toml", recipe.encode())


def _compare(recorded: Recorded, directory: Path, first: int, last: int) -> tuple[int, list[str]]:
    """How many numbers and models were compared, and what is different."""
    differences, compared, lines = [], 0, recorded.metrics()
    for line in read_metrics(directory / "metrics.jsonl"):
        before = lines.get(line["step"])
        if before is None:
            differences.append(f"metrics.jsonl of the run has no line of step {line['step']}")
            continue
        for name in line.keys() & before.keys():
            if _learnt(name):
                compared += 1
                if not equal(before[name], line[name]):
                    differences.append(f"step {line['step']}: {name} was {before[name]!r} and is {line[name]!r}")
    models = [f"checkpoints/step-{step:06d}" for step in range(first, last + 1)]
    models += ["final"] if last == recorded.stage.run.steps else []
    for name in models:
        ours, theirs = directory / name, recorded.directory / name
        if ours.is_dir() and theirs.is_dir():
            compared += 1
            if (other := unlike(ours, theirs)) is not None:
                differences.append(f"the weights of {name}: {other}")
    return compared, sorted(differences)


def _learnt(name: str) -> bool:
    """Whether a number depends on learning alone: not on the clock, nor on how scoring went."""
    return not (is_timing(name) or name.startswith(("eval/", "reward/", "prompts/", "task/")))
