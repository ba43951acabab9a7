"""The worker process: receives groups, runs the reward functions on them, sends scores back.

It is a fresh interpreter rather than a fork, so it shares no locks, threads or CUDA state with the trainer, and rather
than a multiprocessing child, so the user's `__main__` is not run a second time. Standard output belongs to the user's
functions; the protocol has a channel of its own: pickles come in, because rows hold any Python object, JSON goes out.
"""

from __future__ import annotations

import functools
import json
import os
import pickle
import socket
import time
from collections.abc import Callable
from typing import Any

from cohort.remote_code import remote_code
from cohort.rewards.calling.reward import Reward
from cohort.rewards.failure import RewardFailure, what_was_raised
from cohort.rewards.items import ScoringItem
from cohort.rewards.marks import prepare
from cohort.rewards.workers.channel import attach, leave, receive, send
from cohort.rewards.workers.keeper import keep
from cohort.types import InfrastructureError, UserError
from cohort.wording import one_line


def main(channel: int, parent: int) -> None:
    """Serve the pool at the other end of the file descriptor `channel` until it closes or `parent` dies."""
    connection = attach(channel, keep(channel, parent))
    os.register_at_fork(after_in_child=connection.close)  # a child that a reward forks must not speak for us
    try:
        rewards = _load(connection)
        while rewards is not None:
            first, pickled = pickle.loads(receive(connection))
            reward: Reward | None = None
            try:
                item: ScoringItem = pickle.loads(pickled)
                for reward in rewards[first:]:  # a reply for each, so that the pool knows which one is running
                    started = time.perf_counter()
                    scored = reward.judge(item)
                    rows = [[score.value, score.label, score.steps, score.extra, score.metrics] for score in scored]
                    _reply(connection, scored=rows, seconds=time.perf_counter() - started)
            except BaseException as error:  # the first failure ends the group
                _reply(connection, **_failure(error, reward))
    except (EOFError, OSError):
        pass
    leave()


def _load(connection: socket.socket) -> list[Reward] | None:
    rewards = []
    for name, pickled in pickle.loads(receive(connection)):
        try:
            reward: Reward = pickle.loads(pickled)
            prepare(reward.function, reward.args)
            rewards.append(reward)
        except UserError as error:
            _reply(connection, user_error=str(error))
            return None
        except BaseException as error:
            problem = f"cannot be loaded in a worker: {what_was_raised(error, _load)}"
            if isinstance(error, AttributeError) and "__main__" in str(error):
                problem += "; a worker does not run your script or notebook: put that into a module and import it"
            _reply(connection, failure=[name, problem])
            return None
    _reply(connection, ready=os.getpid(), code=remote_code())
    return rewards


def recached(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Callable[..., Any]:
    """A helper with a cache, which the trainer has sent by value."""
    return functools.lru_cache(maxsize, typed)(function)


def recached_property(function: Callable[[Any], Any], name: str) -> functools.cached_property[Any]:
    """A cached property of a class that the trainer has sent by value."""
    made = functools.cached_property(function)
    made.__set_name__(object, name)
    return made


def _failure(error: BaseException, reward: Reward | None) -> dict[str, Any]:
    """The reply where a reward raised, or where the group could not be read."""
    if reward is None:
        return {"user_error": f"a row cannot be loaded in a reward worker: {what_was_raised(error, _failure)}"}
    if isinstance(error, RewardFailure):
        return {"failure": list(error.args)}
    if isinstance(error, InfrastructureError):
        return {"infrastructure": one_line(error)}
    if isinstance(error, UserError):
        return {"user_error": str(error)}
    # Whatever a function has come up with, it is not the machine's fault.
    return {"failure": [reward.name, f"raised {what_was_raised(error, reward.function)}"]}


def _reply(connection: socket.socket, **message: Any) -> None:
    send(connection, json.dumps(message).encode())  # floats keep every bit, NaN included
