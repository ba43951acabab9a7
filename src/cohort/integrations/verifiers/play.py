"""Plays conversations of the library `verifiers` (v1 of 0.4.0) without the programs, servers and runtimes it starts.

An environment's `run` says what the policy is told between its turns; a task's rewards score the conversation. `run`
gets a stand-in for its agent, which answers with replies that are there already. To find out what follows a reply, the
conversation is played again from its beginning: nothing is kept between turns, and a reward worker in another process
sees what the policy saw. This works for an environment that says the same to the same replies; an environment that does
not is found out.
"""

from __future__ import annotations

import asyncio
import json
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from cohort.integrations import require
from cohort.patience import loop_called
from cohort.types import Finish, InfrastructureError, Message, UserError
from cohort.wording import import_from_here, one_line

COLUMN = "verifiers"  # the column of a prompt that says which task it is
VERSION = "0.4.0"
# What an OpenAI client, as judges have one, raises for a server that is down or busy.
THE_WORLD = ("APIConnectionError", "APITimeoutError", "InternalServerError", "RateLimitError")


@dataclass(frozen=True, slots=True)
class Played:
    """A conversation as far as its replies go. `said[i]` is what the environment said before reply i; where it is not
    `over`, one more entry has what it says to the last reply. `rewards` are the task's, each as (score, weight).
    """

    said: tuple[tuple[Message, ...], ...]
    over: bool
    rewards: Mapping[str, tuple[float, float]]


def require_library(part: str | None = None) -> None:
    """Raise UserError unless `verifiers` is here, in the version that this folder was written for. `part`, an argument
    of the reward that is prepared by this, changes nothing.
    """
    require("verifiers.v1", "verifiers", VERSION, "Cohort was written for")


def play(row: Mapping[str, Any], replies: Sequence[str], finish: Finish = "stop", score: bool = False) -> Played:
    """Play the task of a prompt (its column `verifiers`) with these replies; `finish` is how the last one ended.

    With `score` the conversation is closed where the replies end, as at a limit of turns, and its rewards are computed.
    Raises InfrastructureError when something that the environment asks cannot be reached, and UserError when its code
    raises.
    """
    env = environment_of(row["id"], row["args"])
    # One loop for all environments of this process: as in the library, they take turns only where they wait, so that
    # what belongs to the whole process, such as Python's generator, is not drawn from by two at once.
    loop = loop_called("verifiers")
    with blamed(row["id"], "run"):
        return asyncio.run_coroutine_threadsafe(_play(env, task_of(row), replies, finish, score), loop).result()


async def _play(env: Any, task: Any, replies: Sequence[str], finish: Finish, score: bool) -> Played:
    from verifiers.v1.configs.agent import agent_config_fields
    from verifiers.v1.episode import EnvInfo, Episode
    from verifiers.v1.trace import TraceTask

    from cohort.integrations.verifiers.stand_in import PausedError, StandIn

    ((role, config),) = agent_config_fields(env.config).items()
    agent = StandIn(config, role, replies, finish, score)
    agents = SimpleNamespace(**{role: agent})
    try:
        await env.setup(agents)
        await env.run(task, agents)
    except (PausedError, BaseExceptionGroup):
        if score or agent.replay is None or not agent.replay.wants_more:
            raise
    except SystemExit as error:  # it would end the loop, and with it every environment of this process
        raise RuntimeError(f"it ended the process: {error}") from None
    replay = agent.replay
    if replay is None or not replay.said:
        raise UserError("its run asks the agent nothing")
    if score:
        info, data = EnvInfo(id=env.config.env_id), TraceTask(type=type(task).__name__, data=task.data)
        await env.finalize(task, Episode(env=info, task=data, traces=[replay.trace], ok=True))
    rewards = {name: (found.score, found.weight) for name, found in replay.trace.rewards.items()} if score else {}
    return Played(tuple(replay.said), not replay.wants_more, rewards)


def task_of(row: Mapping[str, Any]) -> Any:
    """The library's task, from the column of its prompt."""
    kind = pkgutil.resolve_name(row["type"])
    return kind(kind.data_type().model_validate(row["data"]), kind.config_type().model_validate(row["config"]))


def environment_of(name: str, args: Mapping[str, Any]) -> Any:
    """The environment of a package, with its taskset; `args` are fields of the taskset's configuration."""
    return _environment(name, json.dumps(dict(args), sort_keys=True))


@lru_cache(maxsize=16)
def _environment(name: str, args: str) -> Any:
    require_library()
    from verifiers.v1.utils.loaders import load_environment, resolve_env_config

    import_from_here()
    try:
        return load_environment(resolve_env_config({"taskset": {**json.loads(args), "id": name}}))
    except Exception as error:  # the package is the user's, and its code may do anything
        what = f"the verifiers environment {name!r} cannot be loaded with args = {args}"
        raise UserError(f"{what}: {type(error).__name__}: {one_line(error)}") from error


@contextmanager
def blamed(name: str, what: str) -> Iterator[None]:
    """Tell apart what an environment's own code raises and what the world does to it."""
    try:
        yield
    except InfrastructureError:
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None and type(cause).__module__.startswith("verifiers."):
            cause = cause.__cause__  # the library's errors say at which hook; theirs, what happened
        if isinstance(cause, (ConnectionError, TimeoutError)) or type(cause).__name__ in THE_WORLD:
            raise InfrastructureError(f"the verifiers environment {name!r} failed: {one_line(cause)}") from error
        problem = str(cause) if isinstance(cause, UserError) else f"{type(cause).__name__}: {one_line(cause)}"
        raise UserError(f"the verifiers environment {name!r} ({what}): {problem}") from error
