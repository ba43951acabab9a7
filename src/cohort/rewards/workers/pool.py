"""The pool: groups go in, scores come out, while the trainer samples on."""

from __future__ import annotations

import atexit
import functools
import io
import marshal
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from types import CodeType
from typing import Any

import cloudpickle

from cohort.rewards.calling.reward import Reward, check_names
from cohort.rewards.items import ScoredGroup, ScoringItem
from cohort.rewards.workers.lane import Job, Lane, Patience
from cohort.rewards.workers.process import WorkerProcess
from cohort.rewards.workers.surroundings import BoundedLog, kept_back
from cohort.rewards.workers.worker import recached, recached_property
from cohort.types import InfrastructureError, UserError
from cohort.wording import one_line

SAID_AFTER_S, SAID_EVERY_S = 5.0, 60.0  # seconds until a wait is spoken of, and the longest pause until it is again


class RewardPool:
    """Worker processes that score groups. A context manager; `close` may be called twice.

    The `workers` processes start at once, in the background. When a worker dies, or a reward raises InfrastructureError
    because what it asked did not answer, the group is scored again up to `retries` times, after waiting `backoff_s` and
    then twice as long each time. A reward that exceeds its `timeout_s` is killed and the group lost: it would hang
    again. What reward functions print goes to the end of the file `log`, whose beginning is dropped when it becomes too
    large, or nowhere. Of the environment they do not see what looks like a secret, but for `pass_environment`. Who
    waits for scores longer than usual is told what for, by `say`, and again at growing intervals.
    """

    def __init__(
        self,
        rewards: Sequence[Reward],
        workers: int = 1,
        retries: int = 2,
        log: str | Path | None = None,
        start_timeout_s: float = 120.0,
        backoff_s: float = 0.5,
        pass_environment: Sequence[str] = (),
        say: Callable[[str], None] | None = None,
    ) -> None:
        check_names(rewards)
        if os.name == "nt":
            raise UserError(
                "rewards are computed in processes that Windows cannot start as they need it: use Linux, macOS or "
                "WSL 2. Stages that score nothing (sft, reward_model) train here"
            )
        if workers < 1 or retries < 0 or backoff_s < 0:
            raise UserError(
                "a reward pool needs 1 worker or more, 0 retries or more and a backoff_s of 0 or more, not "
                f"{workers}, {retries} and {backoff_s}"
            )
        self._log = open(os.path.abspath(log), "ab", buffering=0) if log is not None else None  # noqa: SIM115
        self._bounded = BoundedLog(self._log) if self._log is not None else None
        output = self._log if self._log is not None else subprocess.DEVNULL
        path = tuple(sys.path)  # as it is now
        start_s = max(start_timeout_s, *(reward.timeout_s for reward in rewards))  # some load a model when they start
        withheld = kept_back(os.environ, rewards, pass_environment)
        start = functools.partial(WorkerProcess, pickled(rewards), path, os.getcwd(), output, start_s, withheld)

        self._reads_tokens = any(reward.reads_tokens for reward in rewards)
        self._say, self._usual_s = say, SAID_AFTER_S
        self._in_vain_s, self._say_at_s = 0.0, SAID_AFTER_S  # waited for groups that were lost, since the last scores
        self._owner = os.getpid()
        self._closed = False
        self._lock = threading.Lock()  # no job may enter the queue behind the Nones that end the lanes
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        patience = Patience(retries, backoff_s)
        self._lanes = [
            Lane(f"cohort-reward-{index}", tuple(rewards), start, self._jobs, patience) for index in range(workers)
        ]
        atexit.register(self.close)
        for lane in self._lanes:
            lane.start()
        if any(reward.args.get("trust_remote_code") for reward in rewards):
            for lane in self._lanes:  # the code that they run with a model stands in the record before the first step
                lane.warm.wait()

    def submit(self, item: ScoringItem) -> Future[ScoredGroup]:
        """Score a group. The Future raises RewardFailure or UserError (a person must mend something: stop the run) or
        GroupLost, an InfrastructureError (the group could not be scored: drop it). It is never a score of 0.
        """
        future: Future[ScoredGroup] = Future() if self._say is None else _Told(self._wait)
        if not self._reads_tokens and item.completion_ids:
            item = replace(item, completion_ids=())  # nothing that a worker would not look at
        with self._lock:
            if self._closed:
                raise RuntimeError("the reward pool is closed")
            self._jobs.put((future, item))
        return future

    def _wait(self, wait: Callable[[float], ScoredGroup]) -> ScoredGroup:
        """What `wait`, which takes seconds, gives in the end. Twice what a group has taken is no reason to speak; what
        was waited for groups that were lost counts as well.
        """
        began = time.monotonic() - self._in_vain_s
        while True:
            try:
                found = wait(max(self._say_at_s - (time.monotonic() - began), 0))
            except TimeoutError:
                asking = min((a for lane in self._lanes if (a := lane.asking)), key=lambda a: a.since, default=None)
                what = asking or "the reward workers"
                waited = time.monotonic() - began
                if self._say is not None:
                    self._say(f"no scores for {waited:.0f} s: waiting for {what}")
                self._say_at_s = waited + min(waited + self._usual_s, max(self._usual_s, SAID_EVERY_S))
            except InfrastructureError:
                self._in_vain_s = time.monotonic() - began
                raise
            else:
                self._usual_s = max(self._usual_s, 2 * (time.monotonic() - began - self._in_vain_s))
                self._in_vain_s, self._say_at_s = 0.0, self._usual_s
                return found

    def close(self) -> None:
        """Kill the workers and end the threads. Groups that wait are cancelled; those being scored fail."""
        if os.getpid() != self._owner:
            return  # a fork of the trainer has no threads to join, and must not kill the trainer's workers
        with self._lock:
            first, self._closed = not self._closed, True
            if first:
                for _ in self._lanes:
                    self._jobs.put(None)
        for lane in self._lanes:
            lane.stop()
        for lane in self._lanes:
            if lane.ident is not None:  # it was started
                lane.join()
        if first and self._bounded is not None and self._log is not None:
            self._bounded.close()
            self._log.close()
        atexit.unregister(self.close)

    def __enter__(self) -> RewardPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Told(Future[ScoredGroup]):
    """A future whose result, where it is waited for without a limit, is waited for by `wait`."""

    def __init__(self, wait: Callable[[Callable[[float], ScoredGroup]], ScoredGroup]) -> None:
        super().__init__()
        self._wait = wait

    def result(self, timeout: float | None = None) -> ScoredGroup:
        return super().result(timeout) if timeout is not None or self.done() else self._wait(super().result)


def pickled(rewards: Sequence[Reward]) -> bytes:
    """Names and pickles of rewards, as another process takes them. Raises `UserError` for one that cannot be sent."""
    return cloudpickle.dumps([(reward.name, _pickle(reward)) for reward in rewards])


def _pickle(reward: Reward) -> bytes:
    """By reference where the worker can import the function, by value otherwise (lambdas, closures, `__main__`)."""
    pickled = io.BytesIO()
    try:
        _Pickler(pickled).dump(reward)
        return pickled.getvalue()
    except Exception as error:
        raise UserError(
            f"reward '{reward.name}' cannot be sent to a worker process: {one_line(error)}; create such objects "
            "inside the function, at its first call, or put the function and what it uses into a module (a .py file) "
            "and import it from there"
        ) from error


class _Pickler(cloudpickle.Pickler):
    """Helpers with a cache (`functools.cache`, `lru_cache`, `cached_property`) of a script or notebook go by value, as
    its other functions do, with an empty cache.

    Functions that go by value keep the file that they came from, which the message about one that raises names. Some
    versions of cloudpickle leave it out. A worker runs the trainer's Python, so it reads marshal's bytes.
    """

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, CodeType):
            try:
                return marshal.loads, (marshal.dumps(obj),)
            except ValueError:  # code that a program made, with constants that no source can have
                return NotImplemented  # as cloudpickle does it
        if isinstance(obj, functools.cached_property):
            return recached_property, (obj.func, obj.attrname)
        if isinstance(obj, _Cached) and not _is_importable(obj):
            return recached, (obj.__wrapped__, *obj.cache_parameters().values())
        return super().reducer_override(obj)


_Cached = type(functools.lru_cache(len))


def _is_importable(cached: Any) -> bool:
    """Whether a worker finds it by its name, as it does not what a script or notebook defines."""
    found: Any = sys.modules.get(cached.__module__) if cached.__module__ != "__main__" else None
    for part in cached.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cached
