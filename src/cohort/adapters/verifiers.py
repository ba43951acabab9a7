"""Environments of the library `verifiers` (v1 of 0.4.0), without the programs, servers and runtimes that it starts.

A taskset's tasks are prompts; an environment's `run` says what the policy is told between its turns; a task's rewards
score the conversation. `run` gets a stand-in for its agent, which answers with replies that are there already. So who
wants to know what follows a reply plays the conversation from its beginning: nothing is kept between turns, and a
reward worker in another process sees what the policy saw. This takes an environment that says the same to the same
replies; one that does not is found out.
"""

from __future__ import annotations

import asyncio
import json
import os
import pkgutil
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.metadata import version
from threading import Thread
from types import SimpleNamespace
from typing import Any

from cohort.types import Finish, InfrastructureError, Message, Prompt, UserError, content_id

__all__ = ["COLUMN", "VERSION", "Played", "open_taskset", "play", "require_library", "taskset_of"]

PREFIX = COLUMN = "verifiers"  # of a source; the column that says which task a prompt is
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


def taskset_of(source: str) -> str | None:
    """The package in "verifiers:PACKAGE"; None for a source that is something else."""
    prefix, colon, name = source.partition(":")
    if prefix != PREFIX or not colon:
        return None
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(
            f'{source!r} is not of the form "{PREFIX}:PACKAGE". A package of the Environments Hub is installed first, '
            "and then named without its owner and its version."
        )
    return name


def require_library() -> None:
    """Raise UserError unless `verifiers` is here, in the version that this adapter was written for."""
    try:
        import verifiers.v1  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'environments of verifiers need a package that is not installed ({error}): pip install "cohort[verifiers]"'
        ) from None
    if (installed := version("verifiers")) != VERSION:
        raise UserError(
            f"verifiers is {installed} here, and Cohort was written for {VERSION}: pip install verifiers=={VERSION}"
        )


def open_taskset(name: str, args: Mapping[str, Any], limit: int | None = None) -> list[Prompt]:
    """The tasks of a taskset as prompts, the first `limit` of them. `args` are fields of its configuration.

    Raises UserError where the library or the package is missing, and for what cannot be played in this process.
    """
    env = _environment(name, json.dumps(dict(args), sort_keys=True))
    if not env.taskset.bounded and limit is None:
        raise UserError(f"the taskset {name!r} has no end: keep the first N tasks with limit = N.")
    with _blamed(name, "load"):
        tasks = list(env.taskset if limit is None else env.taskset.take(limit))
    if not tasks:
        raise UserError(f"the taskset {name!r} has no tasks with args = {dict(args)!r}.")
    return [_prompt(name, dict(args), env, task) for task in tasks]


def play(row: Mapping[str, Any], replies: Sequence[str], finish: Finish = "stop", score: bool = False) -> Played:
    """Play the task of a prompt (its column `verifiers`) with these replies; `finish` is how the last one ended.

    With `score` the conversation is closed where the replies end, as at a limit of turns, and its rewards are computed.
    Raises InfrastructureError when something that the environment asks cannot be reached, and UserError when its code
    raises.
    """
    env = _environment(row["id"], json.dumps(row["args"], sort_keys=True))
    with _blamed(row["id"], "run"):
        return asyncio.run_coroutine_threadsafe(_play(env, _task(row), replies, finish, score), _loop()).result()


async def _play(env: Any, task: Any, replies: Sequence[str], finish: Finish, score: bool) -> Played:
    from verifiers.v1.configs.agent import agent_config_fields
    from verifiers.v1.episode import EnvInfo, Episode
    from verifiers.v1.trace import TraceTask

    from cohort.adapters.verifiers_play import PausedError, StandIn

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


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One event loop for all environments of this process: as in the library, they take turns only where they wait,
    so that what belongs to the whole process, such as Python's generator, is not drawn from by two at once.
    """
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, name="verifiers", daemon=True).start()
    return loop


def _prompt(name: str, args: Mapping[str, Any], env: Any, task: Any) -> Prompt:
    """A task as a prompt: what is said before the first reply, and a column from which it can be made again."""
    _refuse(name, env, task)
    kind = type(task)
    row = {
        "id": name,
        "args": args,
        "type": f"{kind.__module__}:{kind.__qualname__}",
        "data": task.data.model_dump(mode="json", exclude_defaults=True),
        "config": task.config.model_dump(mode="json", exclude_defaults=True),
        "one_turn": _one_turn(env),
    }
    with _blamed(name, "load"):
        if _task(row).data != task.data:
            raise UserError(f"a task is not the same after a way through JSON: {task.data!r:.200}")
    ((*before, last),) = play(row, ()).said
    answer = getattr(task.data, "answer", None)
    answer = answer if isinstance(answer, (str, int, float)) else None
    text = last["content"] if not before and last["role"] == "user" else None
    prompt = Prompt.make(text, None if text is not None else [*before, last], answer, {COLUMN: row})
    return replace(prompt, id=content_id(prompt.id, {**row["data"], "idx": None}))  # games may all begin alike


def _task(row: Mapping[str, Any]) -> Any:
    kind = pkgutil.resolve_name(row["type"])
    return kind(kind.data_type().model_validate(row["data"]), kind.config_type().model_validate(row["config"]))


@lru_cache(maxsize=16)
def _environment(name: str, args: str) -> Any:
    """The environment of a package, with its taskset."""
    require_library()
    from verifiers.v1.utils.loaders import load_environment, resolve_env_config

    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)  # as `python -m` has it; the `cohort` command has only its own directory
    try:
        return load_environment(resolve_env_config({"taskset": {**json.loads(args), "id": name}}))
    except Exception as error:  # the package is the user's, and its code may do anything
        what = f"the verifiers environment {name!r} cannot be loaded with args = {args}"
        raise UserError(f"{what}: {type(error).__name__}: {_line(error)}") from error


def _one_turn(env: Any) -> bool:
    """Whether the environment is the library's own for a plain taskset: a prompt and one reply."""
    from verifiers.v1.envs.single_agent import SingleAgentEnv

    return type(env).run is SingleAgentEnv.run


def _refuse(name: str, env: Any, task: Any) -> None:
    """Raise UserError for a task that takes more than a conversation."""
    from verifiers.v1.configs.agent import agent_config_fields

    from cohort.adapters.verifiers_play import obstacles

    roles = list(agent_config_fields(env.config))
    why = f"it has several agents ({', '.join(roles)})" if len(roles) > 1 else next(obstacles(task), None)
    if why is None and type(env.taskset).toolsets(env.taskset.config):
        why = "its taskset has tools, which are MCP servers"
    if why is not None:
        raise UserError(
            f"the verifiers environment {name!r} cannot be trained on: {why}. Cohort plays conversations with one "
            "policy, in its own process."
        )


@contextmanager
def _blamed(name: str, what: str) -> Iterator[None]:
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
            raise InfrastructureError(f"the verifiers environment {name!r} failed: {_line(cause)}") from error
        problem = str(cause) if isinstance(cause, UserError) else f"{type(cause).__name__}: {_line(cause)}"
        raise UserError(f"the verifiers environment {name!r} ({what}): {problem}") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
