"""The stand-in for an agent of `verifiers`: a rollout whose replies are known before it begins.

The library's own `Interaction` and `RolloutSession` decide what is said when, and what ends a conversation.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from verifiers.v1.agent import Interaction
from verifiers.v1.configs.agent import AgentConfig
from verifiers.v1.graph import MessageNode
from verifiers.v1.session import RolloutLimits, RolloutSession, hook_boundary
from verifiers.v1.state import state_cls
from verifiers.v1.task import Task
from verifiers.v1.trace import AgentInfo, ModelCall, Trace, TraceTask
from verifiers.v1.types import AssistantMessage, SystemMessage, UserMessage
from verifiers.v1.utils.decorators import discover_decorated, invoke

from cohort.types import Finish, Message, UserError


class PausedError(BaseException):
    """The environment waits for a reply that is not there yet. No `except Exception` of its own may take this away."""


class Replay:
    """The library's `Rollout`, as far as an `Interaction` needs it, with `replies` for a model.

    Where the replies end, `PausedError` stops the environment. With `score` the rollout stops there instead, as at a
    limit of turns, and closing it runs the task's hooks and computes its rewards.
    """

    def __init__(self, task: Any, config: AgentConfig, name: str, replies: Sequence[str], finish: Finish, score: bool):
        self.trace: Any = Trace(
            task=TraceTask(type=type(task).__name__, data=task.data),
            agent=AgentInfo(config=config, name=name),
            state=state_cls(type(task))(),
        )
        self.said: list[tuple[Message, ...]] = []
        self.closed = self.wants_more = False
        self._task, self._replies, self._finish, self._score = task, replies, finish, score
        limits = RolloutLimits(max_turns=config.max_turns)
        self._session: Any = RolloutSession(None, self.trace, trace_stops=task.hooks("stop"), limits=limits)

    @property
    def ok(self) -> bool:
        """Whether there may be another turn."""
        return self.trace.stop_condition is None

    async def open(self) -> None:
        """Run the task's own setup."""
        await self._hook("setup")

    async def step(self, messages: Sequence[Any] | None = None, *, on_input: Any = None) -> None:
        """The reply to the prompt, or to what the environment says; none where something ends the rollout."""
        if not self.ok or await self._session.refused():
            return
        heard = [*([] if self.said else self._prompt()), *(messages or ())]
        self.said.append(tuple({"role": one.role, "content": _text(one.content)} for one in heard))
        if len(self.said) <= len(self._replies):
            self._record(heard, AssistantMessage(content=self._replies[len(self.said) - 1]))
            return
        self.wants_more = True
        if not self._score:
            raise PausedError
        self.trace.stop("max_turns")

    async def close(self) -> Any:
        """Finish the rollout; its trace."""
        if not self.closed:
            self.closed = self.trace.is_completed = self.trace.ok = True
            if self._score:
                await self._hook("finalize")
                await self._task.score(self.trace)
        return self.trace

    async def _hook(self, name: str) -> None:
        if _own_hook(self._task, name):
            await invoke(getattr(self._task, name), {"trace": self.trace})

    def _prompt(self) -> Iterator[Any]:
        data = self._task.data
        if data.system_prompt is not None:
            yield SystemMessage(content=data.system_prompt)
        yield from [UserMessage(content=data.prompt)] if isinstance(data.prompt, str) else data.prompt or ()

    def _record(self, heard: Sequence[Any], reply: Any) -> None:
        """What one model call leaves in a trace."""
        nodes = self.trace.nodes
        for message in (*heard, reply):
            nodes.append(MessageNode(parent=len(nodes) - 1 if nodes else None, message=message))
        nodes[-1].sampled = True
        cut = self._finish == "length" and len(self.said) == len(self._replies)
        self.trace.calls.append(ModelCall(node=len(nodes) - 1, finish_reason="length" if cut else "stop"))


class StandIn:
    """What an environment's `run` gets for its agent. `replay` is the rollout, once it has begun."""

    trainable = True

    def __init__(self, config: AgentConfig, name: str, replies: Sequence[str], finish: Finish, score: bool) -> None:
        self.replay: Replay | None = None
        self._make = lambda task: Replay(task, config, name, replies, finish, score)

    async def run(self, task: Any, **options: Any) -> Any:
        """One reply to the task's prompt; its trace."""
        replay = await self._open(task, options)
        if task.data.prompt is None:
            raise ValueError("the task has no prompt, and run takes one: open it with interaction")
        await replay.step()
        if replay.ok:
            replay.trace.stop("agent_completed")
        return await replay.close()

    @asynccontextmanager
    async def interaction(self, task: Any, **options: Any) -> AsyncIterator[Interaction]:
        """A conversation that is finished where the context ends."""
        replay: Any = await self._open(task, options)
        interaction = Interaction(replay)
        yield interaction
        await interaction.close()

    async def _open(self, task: Any, options: dict[str, Any]) -> Replay:
        given = [name for name, value in options.items() if value]
        if given:
            raise UserError(f"its run gives the agent {given[0]} =, which is for an agent that is a program")
        if self.replay is not None:
            raise UserError("its run holds several conversations, and a rollout is one")
        for why in obstacles(task):
            raise UserError(why)
        self.replay = self._make(task)
        await self.replay.open()
        return self.replay

    def __getattr__(self, name: str) -> Any:
        raise UserError(f"its run uses {name!r} of the agent; the policy has run, interaction and trainable")


def obstacles(task: Any) -> Iterator[str]:
    """Why a task cannot be played as a conversation alone. The library leaves out metrics that need a runtime."""
    if task.NEEDS_CONTAINER or task.data.image is not None:
        yield "its tasks run in a container"
    if type(task).toolsets(task.config):
        yield "its tasks have tools, which are MCP servers"
    if discover_decorated(task, "intercept"):
        yield "its tasks intercept messages"
    hooks = [getattr(task, name) for name in ("setup", "finalize") if _own_hook(task, name)]
    stops = task.hooks("stop")
    for hook in (*hooks, *task.hooks("reward"), *(judge.score for judge in task.plugged_judges())):
        parameter = inspect.signature(hook).parameters.get("runtime")
        if parameter is not None and parameter.default is parameter.empty:
            yield f"{hook.__name__} of {type(task).__name__} takes a runtime"
    if any(hook_boundary(stop, allow_trace=True) is not Trace for stop in stops):
        yield "its tasks stop at single requests"


def _own_hook(task: Any, name: str) -> bool:
    return getattr(type(task), name) is not getattr(Task, name)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if any(part.type != "text" for part in content):
        raise UserError("a message holds an image, and the policy reads text alone")
    return "\n".join(part.text for part in content)
