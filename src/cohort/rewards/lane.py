"""One lane of the pool: a thread that takes groups from the queue, and the one worker process that it talks to."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from queue import SimpleQueue

import cloudpickle

from cohort.rewards.failure import one_line, shorten
from cohort.rewards.items import ScoredGroup, ScoringItem, combine
from cohort.rewards.process import Setting, WorkerLost, WorkerProcess
from cohort.rewards.reward import Reward
from cohort.types import InfrastructureError, UserError

__all__ = ["Job", "Lane"]

Job = tuple["Future[ScoredGroup]", ScoringItem]


class Lane(threading.Thread):
    """Serves jobs until it takes a None. `stop` makes it finish now: what it scores fails, what waits is cancelled."""

    def __init__(
        self, name: str, rewards: Sequence[Reward], setting: Setting, jobs: SimpleQueue[Job | None], retries: int
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._rewards = rewards
        self._weights = {reward.name: reward.weight for reward in rewards}
        self._setting = setting
        self._jobs = jobs
        self._retries = retries
        self._lock = threading.Lock()  # guards the two below, which `stop` reads from another thread
        self._worker: WorkerProcess | None = None
        self._stopped = False

    def stop(self) -> None:
        """Kill the worker and start no other. The thread then ends at the next None."""
        with self._lock:
            self._stopped = True
            worker = self._worker
        if worker is not None:
            worker.kill()

    def run(self) -> None:
        """The thread: warm the worker up while the trainer loads its model, then serve."""
        try:
            self._start()
        except Exception:
            self._discard()  # the first job starts another one and gets to see what is wrong
        while (job := self._jobs.get()) is not None:
            future, item = job
            if self._stopped:
                future.cancel()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(self._score(item))
                except BaseException as error:
                    future.set_exception(error)
            del job, future, item  # while it waits for the next job, the thread must not keep this one alive
        self._discard()

    def _score(self, item: ScoringItem) -> ScoredGroup:
        try:
            pickled = cloudpickle.dumps(item)
        except Exception as error:
            raise UserError(
                f"the row of the prompt {shorten(item.prompt)} cannot be sent to a reward worker: {one_line(error)}; "
                "keep plain values (numbers, texts, lists) in the task's columns"
            ) from error
        tries = 0
        while True:
            tries += 1
            try:
                results = self._start().score(pickled, self._rewards)
                break
            except WorkerLost as lost:
                self._discard()
                if self._stopped:
                    raise InfrastructureError("the reward pool was closed while it scored this group") from None
                if tries > self._retries:
                    raise InfrastructureError(_sentence(lost, item, tries)) from None
        scores = {reward.name: result for reward, (result, _) in zip(self._rewards, results, strict=True)}
        seconds = {reward.name: spent for reward, (_, spent) in zip(self._rewards, results, strict=True)}
        return ScoredGroup(scores, seconds, combine(scores, self._weights))

    def _start(self) -> WorkerProcess:
        """The worker, started and loaded if there is none."""
        if self._worker is not None:
            return self._worker
        try:
            worker = WorkerProcess(self._setting)
        except OSError as error:
            raise WorkerLost(f"could not be started ({error})", "free processes or memory", None) from error
        with self._lock:
            self._worker = worker
            stopped = self._stopped
        if stopped:  # `stop` came before it could see this worker
            raise WorkerLost("was stopped", "", None)
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


def _sentence(lost: WorkerLost, item: ScoringItem, tries: int) -> str:
    times = "1 try" if tries == 1 else f"{tries} tries"
    if lost.reward is None:
        return f"the reward worker {lost.what} at its start ({times}); {lost.hint}"
    return (
        f"reward '{lost.reward}' {lost.what} on the prompt {shorten(item.prompt)} with {len(item.completions)} "
        f"completions ({times}), so the group has no score; {lost.hint}"
    )
