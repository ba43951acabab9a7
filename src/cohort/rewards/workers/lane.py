"""One lane of the pool: a thread that takes groups from the queue, and the one worker process that it talks to."""

from __future__ import annotations

import math
import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

import cloudpickle

from cohort.rewards.calling.reward import Reward
from cohort.rewards.combination import Combination
from cohort.rewards.failure import GroupLost
from cohort.rewards.items import Scored, ScoredGroup, ScoringItem
from cohort.rewards.workers.process import WorkerProcess, WorkerTrouble, limit_s
from cohort.types import UserError
from cohort.wording import one_line, shorten

Job = tuple["Future[ScoredGroup]", ScoringItem]
LONGEST_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Asking:
    """What a lane waits for: a reward (None: the start of its worker), since `since` (time.monotonic), at most
    `limit_s`; and what became of the try before.
    """

    reward: str | None
    since: float
    limit_s: float
    before: str = ""

    def __str__(self) -> str:
        if self.reward is None:
            return "the start of the reward worker, which imports the rewards and loads their models"
        asked = f"reward '{self.reward}', asked {time.monotonic() - self.since:.0f} s ago"
        again = f"; the try before: it {self.before}" if self.before else ""
        return f"{asked} and given up after {self.limit_s:g} s (its timeout_s){again}"


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a reward is tried again on a group when the world failed, and how long to wait before: `backoff_s`,
    then twice that, and so on.
    """

    retries: int
    backoff_s: float

    def wait_s(self, retry: int) -> float:
        """Seconds before retry number `retry`, counted from 1."""
        return float(min(LONGEST_WAIT_S, self.backoff_s * 2 ** min(retry - 1, 30)))


class Lane(threading.Thread):
    """Serves jobs until it takes a None. `stop` makes it finish now: what it scores fails, what waits is cancelled."""

    def __init__(
        self,
        name: str,
        rewards: Sequence[Reward],
        start: Callable[[], WorkerProcess],
        jobs: SimpleQueue[Job | None],
        patience: Patience,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._rewards = rewards
        self._combination = Combination.of(rewards)
        self._start_worker = start
        self._jobs = jobs
        self._patience = patience
        self._lock = threading.Lock()  # guards the two below, which `stop` uses from another thread
        self._worker: WorkerProcess | None = None
        self._stopped = threading.Event()
        self.asking: Asking | None = None  # written by the thread alone
        self.warm = threading.Event()  # the first worker has loaded the rewards, or has failed to

    def stop(self) -> None:
        """Kill the worker and start no other. The thread then ends at the next None."""
        with self._lock:
            self._stopped.set()
            worker = self._worker
        if worker is not None:
            worker.kill()

    def run(self) -> None:
        """The thread: warm the worker up while the trainer loads its model, then serve."""
        try:
            self.asking = Asking(None, time.monotonic(), math.inf)
            self._start()
        except Exception:
            self._discard()  # the first job starts another one and gets to see what is wrong
        self.asking = None
        self.warm.set()
        while (job := self._jobs.get()) is not None:
            future, item = job
            if self._stopped.is_set():
                future.cancel()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(self._score(item))
                except BaseException as error:
                    future.set_exception(error)
            self.asking = None
            del job, future, item  # while it waits for the next job, the thread must not keep this one alive
        self._discard()

    def _score(self, item: ScoringItem) -> ScoredGroup:
        """The group's scores. A retry goes on with the reward that failed: what was scored before it stands."""
        pickled = _pickle(item)
        replies: list[dict[str, Any]] = []
        troubles: Counter[str | None] = Counter()
        before = ""
        while len(replies) < len(self._rewards):
            try:
                self.asking = Asking(None, time.monotonic(), math.inf)
                worker = self._start()
                message: bytes | None = pickle.dumps((len(replies), pickled))  # then a reply a reward
                for reward in self._rewards[len(replies) :]:
                    limit = limit_s(reward, len(item.completions))
                    self.asking = Asking(reward.name, time.monotonic(), limit, before)
                    replies.append(worker.ask(message, limit, reward.name))
                    message, before = None, ""
            except WorkerTrouble as trouble:
                if trouble.kind != "unavailable":
                    self._discard()
                troubles[trouble.reward] += 1
                before = trouble.what
                self.asking = replace(self.asking, before=before) if self.asking else None
                self._wait_or_give_up(trouble, troubles, item)
        by_name = {reward.name: reply for reward, reply in zip(self._rewards, replies, strict=True)}
        scored = {
            name: [Scored(value, label, tuple(map(tuple, steps)), *of) for value, label, steps, *of in reply["scored"]]
            for name, reply in by_name.items()
        }
        seconds = {name: reply["seconds"] for name, reply in by_name.items()}
        retries = {name: count for name, count in troubles.items() if name is not None}
        return ScoredGroup.of(scored, seconds, self._combination, retries)

    def _wait_or_give_up(self, trouble: WorkerTrouble, troubles: Counter[str | None], item: ScoringItem) -> None:
        """Return when it is time for another try, or raise the GroupLost that the group ends in."""
        tries = troubles[trouble.reward]
        hangs = trouble.kind == "timeout" and trouble.reward is not None  # given the same completions, it would again
        more = not hangs and tries <= self._patience.retries
        if more and not self._stopped.wait(self._patience.wait_s(tries)):
            return
        retries = {name: count - (name == trouble.reward) for name, count in troubles.items() if name is not None}
        sentence = _sentence(trouble, item, tries)
        if self._stopped.is_set():
            sentence = "the reward pool was closed while it scored this group"
        raise GroupLost(sentence, trouble.reward, trouble.kind == "timeout", retries) from None

    def _start(self) -> WorkerProcess:
        """The worker, started and loaded if there is none."""
        if self._worker is not None:
            return self._worker
        try:
            worker = self._start_worker()
        except OSError as error:
            raise WorkerTrouble("death", f"could not be started ({error})", "free processes or memory", None) from error
        with self._lock:
            self._worker = worker
            stopped = self._stopped.is_set()
        if stopped:  # `stop` came before it could see this worker
            raise WorkerTrouble("death", "was stopped", "", None)
        try:
            worker.load()
        except BaseException:
            self._discard()
            raise
        return worker

    def _discard(self) -> None:
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()


def _pickle(item: ScoringItem) -> bytes:
    try:
        return bytes(cloudpickle.dumps(item))
    except Exception as error:
        raise UserError(
            f"the row of the prompt {shorten(item.prompt)} cannot be sent to a reward worker: {one_line(error)}; "
            "keep plain values (numbers, texts, lists) in the task's columns"
        ) from error


def _sentence(trouble: WorkerTrouble, item: ScoringItem, tries: int) -> str:
    times = "1 try" if tries == 1 else f"{tries} tries"
    if trouble.reward is None:
        return f"the reward worker {trouble.what} at its start ({times}); {trouble.hint}"
    return (
        f"reward '{trouble.reward}' {trouble.what} on the prompt {shorten(item.prompt)} with {len(item.completions)} "
        f"completions ({times}), so the group has no score; {trouble.hint}"
    )
