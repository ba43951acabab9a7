"""What a kind of stage is. Everything that the kinds have in common is in `train.loop`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cohort.backends.base import Origin
from cohort.monitor.detectors.finding import Finding
from cohort.policy.load import Start
from cohort.policy.policy import Policy, PolicyFacts
from cohort.preflight.parts import SamplingParts
from cohort.preflight.suites import OpenSuite
from cohort.recipe import Recipe
from cohort.record.metrics import read_metrics
from cohort.record.rollouts import shards_after
from cohort.settings import KINDS, Stage
from cohort.settings.stage import EVERY_KIND
from cohort.tasks.prompts import Items
from cohort.train.checkpoint import Checkpoint
from cohort.train.recorder import Recorder
from cohort.train.stopping import StopRequest
from cohort.types import Group, UserError
from cohort.views.console import Console
from cohort.wording import find, one_line

T = TypeVar("T")
Plan = Mapping[str, str]  # the lines that are printed before a stage starts: what it is about to do
TEXTS_FOR_TOKENIZER = 4000
NOBODY_JUDGES = (
    "stage '{}' holds problems out (task.held_out), but has no reward that says which answers to them are right: add "
    'one, such as evaluate.reward = "exact_number", or hold nothing out'
)


@dataclass(frozen=True, slots=True)
class Context:
    """Where and how one stage of a run runs."""

    recipe: Recipe
    stage: Stage
    title: str
    seed: int
    directory: Path  # the stage's own
    console: Console
    start: Start
    recorder: Recorder
    follows: str = ""  # the stage before, where its model is what this one starts from
    check: Callable[[], None] = lambda: None  # raises UserError when the run's directory is another than it was
    stop: StopRequest = field(default_factory=StopRequest)  # a kind may check it where a step is left without a trace
    suites: tuple[OpenSuite, ...] = ()  # evaluated beside the held-out problems
    parent: Checkpoint | None = None  # of another run, from which this one begins
    first: int = 0  # the step after which the stage begins
    until: int | None = None  # its last step, where that is another than the recipe's
    did: tuple[Finding, ...] = ()  # what detectors did in the run that is learnt again: that, and no more, is done

    @property
    def place(self) -> Path:
        """The stage's own directory, to write into, if it still is what it was."""
        self.check()
        return self.directory

    @property
    def final(self) -> Path:
        """Where the trained model goes."""
        return self.place / "final"

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints go."""
        return self.place / "checkpoints"

    @property
    def metrics(self) -> Path:
        """Where the numbers of every step go."""
        return self.place / "metrics.jsonl"

    @property
    def log(self) -> Path:
        """Where every rollout goes."""
        return self.place / "log"

    @property
    def last(self) -> int:
        """The last step."""
        return self.stage.run.steps if self.until is None else self.until

    def origin(self, prepared: Prepared, checkpoint: Checkpoint | None) -> Origin:
        """Where the stage's weights come from."""
        path = None if checkpoint is None else checkpoint.path
        return Origin(self.seed, self.start, prepared.texts, path, self.place / "base")

    def is_due(self, step: int, every: int) -> bool:
        """Whether what is done every so many steps is done after this one; after the last step always."""
        return step == self.last or bool(every and step % every == 0)

    def evaluation_at(self, step: int) -> dict[str, Any]:
        """The eval/ metrics of a step that has been recorded; empty when there are none."""
        lines = read_metrics(self.metrics) if self.metrics.exists() else []
        found = next((line for line in lines if line["step"] == step), {})
        return {key: value for key, value in found.items() if key.startswith("eval/")}

    def forget_after(self, step: int) -> None:
        """Delete recorded rollouts of later steps: the resumed run writes the same ones again."""
        for file in shards_after(self.log, step):
            file.unlink()


class Prepared(Protocol):
    """All of a stage that needs no model, opened and checked. A kind adds what is its own."""

    @property
    def parts(self) -> SamplingParts | None:
        """What completions are sampled and scored with; None where the stage does not score any."""

    def texts(self) -> Iterable[str]:
        """The stage's own texts, from which the tokenizer of a policy that is made from nothing is learnt."""


def first_texts(items: Items[T], text: Callable[[T], str]) -> Iterable[str]:
    """The texts of the first items of a stage, enough to learn a tokenizer from."""
    size = TEXTS_FOR_TOKENIZER if items.size is None else min(items.size, TEXTS_FOR_TOKENIZER)
    return (text(items[i]) for i in range(size))


def refuse_few(items: Items[Any], what: str, key: str, wanted: int) -> None:
    """Refuse a task that has fewer items than one step takes, which the recipe says under `key`."""
    if items.size is not None and items.size < wanted:
        raise UserError(
            f"the task has {items.size} {what}, fewer than one step takes ({key} = {wanted}). Lower "
            f"{key.partition('.')[2]} to {items.size} or less, or bring more."
        )


# Of the numbers of a step's groups, those that are kept and those that are left out: the tickets not to be learnt from.
Screen = Callable[[Mapping[str, float], Sequence[Group], Sequence[Group]], Collection[int]]


class Acting(Protocol):
    """What a `Training` has beside, of a kind with `acts`."""

    screen: Screen | None  # for "quarantine"

    def adapt(self, stage: Stage) -> None:
        """Train by this stage's settings, from the next step on."""

    def go_back(self, path: Path) -> None:
        """Take the weights of the checkpoint at `path` and what trains them; what is learnt from goes on."""


P = TypeVar("P", bound=Prepared)


class StageKind(Protocol[P]):
    """One kind of stage. `KINDS` names a class like this, which is made without arguments; so may a recipe."""

    tables: tuple[str, ...]  # the tables of the recipe that it reads; another one in a stage of this kind is a mistake
    columns: tuple[str, ...]  # the metrics on the live line, in this order
    makes_policy: bool  # whether the stage after it may continue from its model
    # It may have `unread`: keys of these tables, such as "optimizer.epochs", that it does not read (`train.unread`).
    # It may have `acts`: which of "quarantine", "adapt" and "roll_back" its trainings, each an `Acting`, can do.
    # A kind that leaves data in its `final` also has `makes_data = True`; one that learns from rows and not from
    # prompts has `reads`, their columns beside the prompt.

    def prepare(self, stage: Stage, seed: int) -> P:
        """All that needs no model. Raises `UserError` for whatever is wrong with the stage."""

    def plan(self, stage: Stage, prepared: P, facts: PolicyFacts) -> Plan:
        """What the stage is about to do."""

    def open(self, context: Context, prepared: P, checkpoint: Checkpoint | None) -> Training:
        """Load or make the model and all that trains it, as new or as it was at the checkpoint."""


class Training(Protocol):
    """A stage under way, driven by `train.loop`, which decides when to evaluate, to save and to stop. Of its metrics
    the detectors take `loss`, `grad_norm` and those that begin with `policy/` as of a policy that learns from samples:
    a stage of another kind should keep the latter to itself.
    """

    weights_of: int  # the step whose weights the policy has; one ahead of the loop's while a step updates them
    # A kind that samples also has `groups`, those of its last step, for the detectors; for actions of [monitor] see
    # `Acting`.

    @property
    def facts(self) -> PolicyFacts:
        """Of the model that is trained."""

    @property
    def policy(self) -> Policy | None:
        """The policy that is trained, where it is in this process and one that is given back at the end."""

    def step(self, step: int) -> Mapping[str, float]:
        """One training step: its metrics."""

    def evaluate(self, step: int) -> Mapping[str, float] | None:
        """The `eval/` metrics of the weights as they are; None where this stage has nothing to evaluate with."""

    def save(self, directory: Path) -> Mapping[str, Any]:
        """Write what `StageKind.open` needs to go on as if it had never stopped. Returns what belongs in state.json."""

    def finish(self, directory: Path) -> None:
        """Write the trained model."""

    def close(self) -> None:
        """Give back what the stage holds: processes, tools."""


@dataclass(frozen=True, slots=True)
class PreparedStage:
    """A stage of a recipe with its kind, and all of it that needs no model."""

    stage: Stage
    kind: StageKind[Any]
    seed: int
    prepared: Prepared
    suites: tuple[OpenSuite, ...] = ()


def kind_of(stage: Stage) -> StageKind[Any]:
    """The kind of a stage, made ready. Raises `UserError` for a kind of one's own that is not to be found."""
    found = find(KINDS.get(stage.kind, stage.kind), f"kind of stage '{stage.name}':")
    try:
        kind: StageKind[Any] = found() if callable(found) else found
    except TypeError as error:  # it asks for arguments
        raise UserError(f"the kind '{stage.kind}' of stage '{stage.name}' cannot be made: {one_line(error)}") from error
    return complete(kind, stage, "StageKind", ("tables", "columns", "makes_policy", "prepare", "plan", "open"))


def complete(part: T, stage: Stage, protocol: str, members: Sequence[str]) -> T:
    """The kind of a stage, or its training, if it has the members of its protocol. Raises `UserError` where not."""
    if missing := [name for name in members if not hasattr(part, name)]:
        raise UserError(
            f"{type(part).__name__}, of the kind '{stage.kind}' of stage '{stage.name}', has no {', '.join(missing)}: "
            f"it is a class with {', '.join(members)}, as cohort.train.stage.{protocol} describes"
        )
    return part


def tables_of(stage: Stage) -> tuple[str, ...]:
    """The tables that a stage may have. Suites are answered by a policy."""
    kind = kind_of(stage)
    return (*kind.tables, *(name for name in EVERY_KIND if name != "suite" or kind.makes_policy))
