"""A `Backend` whose learner and samplers are actors. The driver keeps what it takes to make each of them anew.

A learner that dies begins again at the last checkpoint, and does once more what it was asked to do since, from a
journal: every bit comes out as it was. A sampler that dies is replaced by a copy of the learner's model.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from cohort.algorithms.objectives import Objective
from cohort.backends.base import Fingerprint, Origin, Which
from cohort.backends.cluster.actors import LearnerActor
from cohort.backends.cluster.batches import joined, part, parts
from cohort.backends.cluster.door import BEGIN_S, Actor, Door, Lost
from cohort.backends.cluster.samplers import Samplers
from cohort.preflight.objective import asks_reference
from cohort.settings import Stage
from cohort.types import Batch, StepReport, UserError
from cohort.wording import counted

MOST = 64  # entries of the journal, after which the learner is saved for it


@dataclass(frozen=True, slots=True)
class Given:
    """Texts that were read already, as a function that a pickle can hold."""

    texts: tuple[str, ...]

    def __call__(self) -> Iterable[str]:
        """The texts."""
        return self.texts


class Cluster:
    """See the file. `policy` is None: nothing of it is in this process."""

    policy = None

    def __init__(self, stage: Stage, objective: Objective, origin: Origin):
        self._stage, self._objective, self._door = stage, objective, Door(stage)
        texts = tuple(origin.texts()) if stage.policy.scratch is not None and origin.checkpoint is None else ()
        self._origin = replace(origin, texts=Given(texts))
        self._loaded: Path | None = None
        self._journal: list[tuple[str, tuple[Any, ...]]] = []
        place = Path.cwd() if origin.base is None else origin.base.parent
        self._kept = place / f".learner-{os.getpid()}.tmp"  # which is swept where a run begins again
        self._ranks: list[Actor] = []
        self._alone = threading.RLock()  # a sampler that is begun anew asks for the model while the learner works
        self._firmly(lambda: None)
        self.sampler = Samplers(self._door, stage, lambda: self._firmly(lambda: self._all("blueprint")[0]))

    def load(self, directory: Path) -> None:
        """See `Backend`."""
        self._done("load", directory)
        self._loaded = directory

    def score(self, batch: Batch, which: Which) -> Batch:
        """See `Backend`."""
        return self._done("score", batch, which)

    def update(self, batch: Batch, rate: float) -> StepReport:
        """See `Backend`."""
        return self._noted("update", batch, rate)

    def update_values(self, batch: Batch, returns: Tensor, rate: float) -> float:
        """See `Backend`."""
        return self._noted("update_values", batch, returns, rate)

    def publish(self, version: int) -> Fingerprint:
        """See `Backend`. The weights go from the learner into Ray's store, once, and from there to each sampler."""

        def published() -> Any:
            asked = [one.handle.publish.options(num_returns=2).remote(version) for one in self._ranks]
            claims = [self._door.answer(claim, one.who) for (claim, _), one in zip(asked, self._ranks, strict=True)]
            return claims[0], asked[0][1]

        claim: Fingerprint
        claim, weights = self._firmly(published)
        self.sampler.take(claim, weights)
        return claim

    def move_reference(self, ema: float | None) -> None:
        """See `Backend`."""
        self._noted("move_reference", ema)

    def adapt(self, objective: Objective, temperature: float) -> None:
        """See `Backend`."""
        self._noted("adapt", objective, temperature)

    def open_teachers(self) -> int:
        """See `Backend`. Stages that have teachers do not come here."""
        return 0

    def rehearse(self, prompt: int) -> None:
        """See `Backend`. What fits into an actor's memory is not tried."""

    def save(self, directory: Path) -> None:
        """See `Backend`. The learner writes, so it must see the directory of the run; it is the journal's beginning."""
        self._done("save", directory)
        self._begin_at(directory)

    def restore(self, directory: Path) -> None:
        """See `Backend`."""
        self._done("restore", directory)
        self._begin_at(directory)

    def save_model(self, directory: Path) -> None:
        """See `Backend`."""
        self._done("save_model", directory)

    def close(self) -> None:
        """See `Backend`."""
        self.sampler.close()
        for one in self._ranks:
            self._door.end(one)
        shutil.rmtree(self._kept, ignore_errors=True)

    def _begin_at(self, directory: Path) -> None:
        """Keep a checkpoint, which its run may move or prune, and begin the journal anew from it."""
        shutil.rmtree(self._kept, ignore_errors=True)
        shutil.copytree(directory, self._kept, copy_function=_link)
        self._origin, self._loaded = replace(self._origin, checkpoint=self._kept), self._kept
        self._journal = []

    def _noted(self, name: str, *given: Any) -> Any:
        """Do what changes the learner, and note it."""
        done = self._done(name, *given)
        self._journal.append((name, given))
        if len(self._journal) == MOST:
            fresh = self._kept.with_suffix(".new.tmp")
            fresh.mkdir(parents=True)
            self.save(fresh)
            shutil.rmtree(fresh)
        return done

    def _done(self, name: str, *given: Any) -> Any:
        return self._firmly(lambda: self._once(name, *given))

    def _once(self, name: str, *given: Any) -> Any:
        """What the learner answers. Of a batch each rank has a part."""
        batch, *more = given
        if len(self._ranks) == 1 or not isinstance(batch, Batch):
            return self._all("call", name, *given)[0]
        shares = parts(batch, len(self._ranks))
        said = self._door.all(self._ranks, "call", [(name, part(batch, own), *more) for own in shares])
        return joined(batch, shares, said) if name == "score" else said[0]

    def _all(self, method: str, *given: Any) -> list[Any]:
        return self._door.all(self._ranks, method, [given] * len(self._ranks))

    def _firmly(self, ask: Any) -> Any:
        """What the learner answers; of a new one, which has done all that was noted, where it is lost."""
        why = ""
        for _ in range(self._stage.cluster.retries + 1):
            with self._alone:
                try:
                    if not self._ranks:
                        self._open()
                    return ask()
                except Lost as lost:
                    why = str(lost)
                    for one in self._ranks:
                        self._door.end(one)
                    self._ranks = []
        raise UserError(
            f"stage '{self._stage.name}': {why}, {counted(self._stage.cluster.retries + 1, 'time')} in a row "
            "(cluster.retries). The run is saved up to its last checkpoint"
        )

    def _open(self) -> None:
        count, table = self._stage.cluster.learners, (self._stage, self._objective, self._origin)
        self._ranks = [self._door.start(LearnerActor, f"learner {rank}") for rank in range(count)]
        meeting = self._door.ask(self._ranks[0], "meeting") if count > 1 else ""
        each = [(*table, rank, count, meeting) for rank in range(count)]
        self.facts = self._door.all(self._ranks, "open", each, BEGIN_S)[0]
        if self._loaded is not None:
            self._once("load", self._loaded)
        for name, given in self._journal:
            self._once(name, *given)


def _link(source: str, target: str) -> None:
    """The same file under another name, or a copy where that cannot be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def refuse_several(stage: Stage, objective: Objective) -> None:
    """Raise `UserError` for what a stage cannot do on a cluster, or with several learners or samplers."""
    count = stage.cluster.learners
    for bad, what in (
        (objective.baseline == "critic", 'objective.baseline = "critic", whose critic is one process'),
        (bool(objective.term_of("expert")), "terms of expert rows (objective)"),
        (
            objective.surrogate == "label_contrast",
            'objective.surrogate = "label_contrast", which looks at whole batches',
        ),
        (stage.reference.moves and asks_reference(stage, objective), "a [reference] that moves"),
        (stage.policy.router_aux_coef > 0, "policy.router_aux_coef"),
        (stage.monitor.rolls_back, "monitor.actions that roll back"),
        (stage.optimizer.skip_budget > 0, "optimizer.skip_budget"),
    ):
        if bad and count > 1:
            raise UserError(f"stage '{stage.name}': cluster.learners = {count} cannot have {what}: set it to 1")
    table = stage.rollout.vllm
    for key in ("url", "port") if table is not None and stage.cluster.samplers > 1 else ():
        if (given := getattr(table, key)) is not None:
            raise UserError(
                f"stage '{stage.name}': rollout.vllm.{key} = {given!r} is one server, and cluster.samplers = "
                f"{stage.cluster.samplers}: set it to 1, or leave {key} out: each sampler starts a server then"
            )
    if stage.cluster.offload and count == 1:
        raise UserError(f"stage '{stage.name}': cluster.offload is of sharded weights, and cluster.learners = 1")
    if stage.rollout.over_sample:
        raise UserError(f"stage '{stage.name}': rollout.over_sample needs the engine of this process: remove [cluster]")
    if stage.policy.model == "live":
        raise UserError("a model object cannot go to a cluster: save it, and name its directory in policy.model")
