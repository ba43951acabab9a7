"""Reward pools in actors, behind what a `RewardPool` does: submit a group, get a future."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from cohort.backends.cluster.actors import RewardActor
from cohort.backends.cluster.door import Actor, Door, Lost
from cohort.remote_code import in_workers
from cohort.rewards import Reward, ScoredGroup, ScoringItem
from cohort.rewards.workers.pool import pickled
from cohort.settings import Stage
from cohort.types import InfrastructureError


class ClusterPool:
    """A context manager. A group whose actor dies is scored by another, up to `cluster.retries` times; then it is lost,
    as one whose server does not answer.
    """

    def __init__(self, stage: Stage, rewards: Sequence[Reward], log: Path):
        self._stage, self._door, self._log = stage, Door(stage), log
        self._rewards = pickled(rewards)
        self._actors: dict[int, Actor] = {}
        self._starting = threading.Lock()
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in [*range(stage.cluster.rewards)] * stage.run.workers:
            self._free.put(number)
        for number in range(stage.cluster.rewards):
            self._there(number)
        self._threads = ThreadPoolExecutor(stage.cluster.rewards * stage.run.workers)

    def submit(self, item: ScoringItem) -> Future[ScoredGroup]:
        """See `RewardPool.submit`."""
        return self._threads.submit(self._score, item)

    def _score(self, item: ScoringItem) -> ScoredGroup:
        why = ""
        for _ in range(self._stage.cluster.retries + 1):
            number = self._free.get()
            actor: Actor | None = None
            try:
                actor = self._there(number)
                found: ScoredGroup = self._door.ask(actor, "score", item)
                return found
            except Lost as lost:
                why = str(lost)
                if actor is not None and self._actors.get(number) is actor:
                    del self._actors[number]
                    self._door.end(actor)
            finally:
                self._free.put(number)
        raise InfrastructureError(f"{why}, {self._stage.cluster.retries + 1} times in a row (cluster.retries)")

    def _there(self, number: int) -> Actor:
        with self._starting:  # of the threads that ask for one that has gone, the first starts another
            if (actor := self._actors.get(number)) is None:
                who, workers = f"reward actor {number}", self._stage.run.workers
                actor = self._door.start(RewardActor, who, gpus=False, at_once=workers)
                log = str(self._log.with_name(f"{self._log.stem}-{number}{self._log.suffix}") if number else self._log)
                in_workers.update(self._door.begin(actor, "open", self._rewards, self._stage, log))
                self._actors[number] = actor
            return actor

    def __enter__(self) -> ClusterPool:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors.values():
            self._door.end(actor)
        self._threads.shutdown(wait=False, cancel_futures=True)
