"""Tools of MCP servers: programs that are spoken to over their standard input, or URLs. Each rollout has a session of
its own with each server that it calls.

    [environment]
    tools = ["mcp"]
    args = { mcp = { servers = ["python my_server.py", "http://localhost:8000/mcp"] } }
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cohort.environments.tools import Tool, ToolError
from cohort.patience import HangsError, loop_called
from cohort.types import InfrastructureError, UserError
from cohort.wording import counted, one_line

_INVALID = -32602  # of JSON-RPC: the arguments are wrong


_loop = partial(loop_called, "mcp")  # of all sessions


@dataclass(slots=True)
class Session:
    """One session with the server that a command or URL names: a task that connects, waits until it is closed, and
    disconnects.
    """

    place: str
    timeout_s: float
    _client: Future[Any] = field(default_factory=Future)
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        asyncio.run_coroutine_threadsafe(self._live(), _loop())

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """What a tool answers. Raises ToolError for what the model asked wrongly, InfrastructureError for all else."""
        found = self.ask(lambda client: client.call_tool(name, arguments))
        parts = [getattr(part, "text", None) or f"[{part.type}]" for part in found.content]
        if found.is_error:
            raise ToolError("\n".join(parts) or "it failed")
        return "\n".join(parts)

    def ask(self, question: Any) -> Any:
        """What the client of the session gives within the server's time."""
        from mcp import MCPError

        async def asked() -> Any:
            client = await asyncio.wrap_future(self._client)
            return await question(client)

        future = asyncio.run_coroutine_threadsafe(asked(), _loop())
        server = f"the MCP server {self.place!r}"
        try:
            return future.result(self.timeout_s)
        except TimeoutError:
            future.cancel()
            raise HangsError(f"{server} did not answer within {self.timeout_s:g} s") from None
        except Exception as error:
            if isinstance(error, MCPError) and error.error.code == _INVALID:
                raise ToolError(error.error.message) from None
            inner: BaseException = error
            while isinstance(inner, BaseExceptionGroup):  # of anyio's tasks
                inner = inner.exceptions[0]
            kind = "" if isinstance(error, MCPError) else f"{type(inner).__name__}: "
            raise InfrastructureError(f"{server} failed: {kind}{one_line(inner)}") from error

    def close(self) -> None:
        """Disconnect; a program ends."""
        _loop().call_soon_threadsafe(self._over.set)

    async def _live(self) -> None:
        from mcp import Client, StdioServerParameters

        place: Any = self.place
        if not place.startswith(("http://", "https://")):
            command, *words = shlex.split(place)
            place = StdioServerParameters(command=command, args=words)
        try:
            async with Client(place, read_timeout_seconds=self.timeout_s) as client:
                self._client.set_result(client)
                await self._over.wait()
        except BaseException as error:  # also of anyio: groups of exceptions
            with suppress(Exception):
                self._client.set_exception(error if isinstance(error, Exception) else ConnectionError(str(error)))


def mcp_tools(servers: Sequence[str], timeout_s: float = 30.0) -> tuple[Tool, ...]:
    """The tools that the servers list, each of which may take `timeout_s`. Raises UserError for a server that is not
    there, and where the package mcp is not installed.
    """
    try:
        import mcp  # noqa: F401
    except ImportError:
        raise UserError("tools of MCP servers need the package mcp: pip install 'cohort[mcp]'") from None
    if isinstance(servers, str) or not servers or not all(isinstance(one, str) and one.strip() for one in servers):
        said = 'environment.args.mcp = { servers = ["python my_server.py", "http://localhost:8000/mcp"] }'
        raise UserError(f"the tool mcp needs its servers, as commands or URLs: {said}, not {servers!r}")
    return tuple(tool for place in servers for tool in _listed(place, timeout_s))


def _listed(place: str, timeout_s: float) -> list[Tool]:
    opened = partial(Session, place, timeout_s)  # one for all tools of a server, by which a rollout knows its session
    session = opened()
    try:
        listed = session.ask(_all_tools)
    except (InfrastructureError, ToolError) as error:
        raise UserError(f"{error}: is it a command, or a URL, that speaks MCP?") from error
    finally:
        session.close()
    if not listed:
        raise UserError(f"the MCP server {place!r} has {counted(0, 'tool')}")
    return [
        Tool(
            one.name,
            {"type": "function", "function": {
                "name": one.name, "description": one.description or one.name, "parameters": one.input_schema}},
            partial(_run, one.name),
            session=opened,
        )
        for one in listed
    ]  # fmt: skip


async def _all_tools(client: Any) -> list[Any]:
    found, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if cursor is None:
            return found


def _run(name: str, session: Session, **arguments: Any) -> str:
    return session.call(name, arguments)
