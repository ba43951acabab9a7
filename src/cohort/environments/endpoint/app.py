"""The server: the routes of the OpenAI API over whoever samples, on this machine unless told otherwise."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from cohort.environments.endpoint.talk import Talk, before_stop
from cohort.environments.endpoint.wire import ApiError, Asked, Chat, Reply, Text, piece, pieces, read, whole
from cohort.listening import base_url, is_alone, listen
from cohort.policy.text import reader
from cohort.types import Message, Sampling

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

BODY = 8 << 20  # bytes of a request


@dataclass(slots=True)
class Call:
    """A request on its way: the tokens that its completions follow, the messages in them that are new, how they are
    sampled, and the future of what is answered. `watch` gets the tokens of a completion as they come; `gone` says that
    nobody waits any more.
    """

    asked: Asked
    tokens: tuple[int, ...]
    new: tuple[Message, ...]
    sampling: Sampling
    done: Future[tuple[Reply, ...]] = field(default_factory=Future)
    watch: Callable[[int, Sequence[int]], object] | None = None
    gone: bool = False


class Session(Protocol):
    """Who is behind a base URL and a key."""

    name: str
    talk: Talk

    def prepare(self, asked: Asked) -> Call:
        """The request with its tokens. Raises `ApiError` for one that cannot be answered."""
        ...

    def submit(self, call: Call) -> None:
        """Have it sampled: its future says when that is done, or fails with an `ApiError`."""
        ...


Sessions = Callable[[str, str], Session]  # of a path in front of /v1 and a key; raises `ApiError` for wrong ones


def make_app(sessions: Sessions, hosts: Sequence[str] = ("127.0.0.1", "localhost", "[::1]")) -> Starlette:
    """The application. `hosts` are its names: others are not answered, as a page may point one at this machine."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    def session_of(request: Request) -> Session:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        return sessions(request.path_params.get("rollout", ""), key.strip() if scheme.lower() == "bearer" else "")

    def creates(form: type[Asked]) -> Any:
        async def route(request: Request) -> Response:
            session = session_of(request)
            asked = read(form, await _body(request))
            return await _answer(session, await asyncio.to_thread(session.prepare, asked), request)

        return route

    async def models(request: Request) -> Response:
        one = {"id": session_of(request).name, "object": "model", "created": 0, "owned_by": "cohort"}
        if (wanted := request.path_params.get("model")) is None:
            return JSONResponse({"object": "list", "data": [one]})
        if wanted != one["id"]:
            raise ApiError(404, f"there is no model {wanted!r}: it is {one['id']!r}", "model_not_found", "model")
        return JSONResponse(one)

    async def refused(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            error = ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
        if not isinstance(error, ApiError):
            error = ApiError(500, f"{type(error).__name__}: {error}")
        return JSONResponse(error.body, error.status)

    made = [
        ("/chat/completions", creates(Chat), ["POST"]),
        ("/completions", creates(Text), ["POST"]),
        ("/models", models, ["GET"]),
        ("/models/{model:path}", models, ["GET"]),
    ]
    return Starlette(
        routes=[Route(f"{at}/v1{path}", do, methods=how) for at in ("", "/{rollout}") for path, do, how in made],
        exception_handlers={ApiError: refused, HTTPException: refused, Exception: refused},
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
    )


async def _body(request: Request) -> bytes:
    """The body of a request, which a page of another site cannot send: JSON alone is read."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise ApiError(415, "the body of a request is JSON: say content-type: application/json")
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > BODY:
            raise ApiError(413, f"a request has at most {BODY >> 20} MiB")
    return bytes(found)


async def _answer(session: Session, call: Call, request: Request) -> Response:
    from starlette.responses import JSONResponse, StreamingResponse

    asked, answer = call.asked, f"{'chatcmpl' if isinstance(call.asked, Chat) else 'cmpl'}-{secrets.token_hex(12)}"
    if asked.stream:
        events = _events(session, call, answer)
        first = await anext(events)  # a refusal comes before the stream begins, with its own status
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_from(first, events), media_type="text/event-stream", headers=headers)
    session.submit(call)
    waiting = asyncio.wrap_future(call.done)
    while not (await asyncio.wait({waiting}, timeout=0.5))[0]:
        if await request.is_disconnected():
            call.gone = True
            waiting.cancel()
            raise ApiError(499, "the client has gone")
    return JSONResponse(whole(session.name, asked, _result(waiting), len(call.tokens), answer))


async def _from(first: str, events: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for event in events:
        yield event


async def _events(session: Session, call: Call, answer: str) -> AsyncIterator[str]:
    """The server-sent events of a stream: text as it comes, unless it may be a call or a stop string; then the rest."""
    asked, name, loop = call.asked, session.name, asyncio.get_running_loop()
    news: asyncio.Queue[tuple[int, tuple[int, ...]] | None] = asyncio.Queue()
    call.watch = lambda member, tokens: loop.call_soon_threadsafe(news.put_nowait, (member, tuple(tokens)))
    call.done.add_done_callback(lambda _: loop.call_soon_threadsafe(news.put_nowait, None))
    session.submit(call)
    read_text, sent, begun = reader(session.talk.tokenizer, session.talk.eos_ids), dict[int, int](), False
    try:
        while (one := await news.get()) is not None:
            if not begun:
                begun = True
                for index in range(asked.n):
                    yield _event(piece(name, asked, answer, index, None))
            if isinstance(asked, Chat) and asked.schemas:
                continue
            member, tokens = one
            text = before_stop(read_text(tokens), asked.stops).rstrip("\ufffd")  # half a character is not yet one
            safe = len(text) - max(map(len, asked.stops), default=0)
            if safe > sent.get(member, 0):
                yield _event(piece(name, asked, answer, member, text[sent.get(member, 0) : safe]))
                sent[member] = safe
        try:
            replies = _result(call.done)
        except ApiError as error:
            if not begun:
                raise
            yield _event(error.body)
            return
        for index in range(asked.n if not begun else 0):
            yield _event(piece(name, asked, answer, index, None))
        for last in pieces(name, asked, replies, len(call.tokens), answer, sent):
            yield _event(last)
        yield "data: [DONE]\n\n"
    finally:
        call.gone = True


def _result(done: Any) -> tuple[Reply, ...]:
    try:
        found: tuple[Reply, ...] = done.result()
    except (ApiError, CancelledError, asyncio.CancelledError) as error:
        raise error if isinstance(error, ApiError) else ApiError(503, "it was given up: the server ends") from None
    except Exception as error:
        raise ApiError(500, f"{type(error).__name__}: {error}") from error
    return found


def _event(value: Any) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


class Server:
    """The application on a port, in a thread of its own, until it is closed. `url` is where its paths begin."""

    def __init__(self, sessions: Sessions, host: str = "127.0.0.1", bound: socket.socket | None = None) -> None:
        import uvicorn

        bound = listen(host, 0) if bound is None else bound
        self.url = base_url(host, bound)
        app = make_app(sessions) if is_alone(host) else make_app(sessions, ("*",))
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, server_header=False, timeout_graceful_shutdown=1,
            timeout_keep_alive=60, limit_concurrency=4096, lifespan="off",
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [bound]}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it: open connections are cut after a second."""
        self._server.should_exit = True
        self._thread.join(5)
