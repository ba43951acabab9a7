"""Tools of MCP servers: programs that are spoken to over their standard input, or URLs. Each rollout has a session of
its own with each server that it calls.

    [environment]
    tools = ["mcp"]
    args = { mcp = { servers = ["python my_server.py", "http://localhost:8000/mcp"] } }
"""

from __future__ import annotations

import asyncio
import shlex
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from cohort.environments.tools import Tool, ToolError
from cohort.patience import HangsError
from cohort.types import InfrastructureError, UserError
from cohort.wording import counted, one_line

_INVALID = -32602  # of JSON-RPC: the arguments are wrong


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """The loop of all sessions, in a thread of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="mcp", daemon=True).start()
    return loop


@dataclass(frozen=True, slots=True)
class Server:
    """A server, by its command or URL."""

    place: str
    timeout_s: float

    def open(self) -> Session:
        """A new session."""
        return Session(self)


@dataclass(slots=True)
class Session:
    """One session: a task that connects, waits until it is closed, and disconnects."""

    server: Server
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

        async def asked() -> Any:
            client = await asyncio.wrap_future(self._client)
            return await question(client)

        return _answer(asked(), self.server)

    def close(self) -> None:
        """Disconnect; a program ends."""
        _loop().call_soon_threadsafe(self._over.set)

    async def _live(self) -> None:
        from mcp import Client, StdioServerParameters

        place: Any = self.server.place
        if not place.startswith(("http://", "https://")):
            command, *words = shlex.split(place)
            place = StdioServerParameters(command=command, args=words)
        try:
            async with Client(place, read_timeout_seconds=self.server.timeout_s) as client:
                self._client.set_result(client)
                await self._over.wait()
        except BaseException as error:  # also of anyio: groups of exceptions
            with suppress(Exception):
                self._client.set_exception(error if isinstance(error, Exception) else ConnectionError(str(error)))


def _answer(asked: Coroutine[Any, Any, Any], server: Server) -> Any:
    from mcp import MCPError

    future = asyncio.run_coroutine_threadsafe(asked, _loop())
    try:
        return future.result(server.timeout_s)
    except TimeoutError:
        future.cancel()
        raise HangsError(f"the MCP server {server.place!r} did not answer within {server.timeout_s:g} s") from None
    except MCPError as error:
        if error.error.code == _INVALID:
            raise ToolError(error.error.message) from None
        raise InfrastructureError(f"the MCP server {server.place!r} failed: {one_line(error)}") from error
    except Exception as error:
        inner: BaseException = error
        while isinstance(inner, BaseExceptionGroup):  # of anyio's tasks
            inner = inner.exceptions[0]
        why = f"{type(inner).__name__}: {one_line(inner)}"
        raise InfrastructureError(f"the MCP server {server.place!r} failed: {why}") from error


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
    return tuple(tool for place in servers for tool in _listed(Server(place, timeout_s)))


def _listed(server: Server) -> list[Tool]:
    session = server.open()
    try:
        listed = session.ask(_all_tools)
    except (InfrastructureError, ToolError) as error:
        raise UserError(f"{error}: is it a command, or a URL, that speaks MCP?") from error
    finally:
        session.close()
    if not listed:
        raise UserError(f"the MCP server {server.place!r} has {counted(0, 'tool')}")
    return [
        Tool(
            one.name,
            {"type": "function", "function": {
                "name": one.name, "description": one.description or one.name, "parameters": one.input_schema}},
            partial(_run, one.name),
            session=server.open,
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
