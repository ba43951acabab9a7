"""The server of the viewer: Starlette on this machine, which only reads."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from markupsafe import Markup
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from cohort.listening import base_url, is_alone, listen
from cohort.types import UserError
from cohort.views.dashboard import facts, groups, overview
from cohort.views.dashboard.guard import Guard
from cohort.views.dashboard.screens import HERE, SCREENS, Asked, Site, absent, address, render, templates
from cohort.wording import one_line, visible

_MEASURING = threading.Lock()
KEPT = 16  # groups whose tokens were computed again and are remembered
JUDGED = 20  # runs of the list whose verdict is said
POLL, BEAT = 1.0, 15.0  # seconds between two looks at a run, and between two signs of life
PORT = 8765


def make_app(site: Site, hosts: Sequence[str] = (), token: str = "") -> Starlette:
    """The application. `hosts` are the names under which it answers, besides those of this machine alone; with a
    `token` nobody is answered who does not have it.
    """
    site = replace(site, csrf=secrets.token_urlsafe(24))
    routes = [
        Route("/", _home),
        Route("/r/{run:int}/{stage:int}/verify", _verify, methods=["POST"]),
        Route("/r/{run:int}/{stage:int}/measure", _measure, methods=["POST"]),
        Route("/r/{run:int}/{stage:int}/group.json", _group_json),
        Route("/r/{run:int}/{stage:int}/{screen}", _screen),
        Route("/events/{run:int}", _events),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]
    app = Starlette(routes=routes, exception_handlers=dict.fromkeys((HTTPException, UserError, Exception), _problem))
    app.state.site = site
    app.add_middleware(Guard, hosts=tuple(hosts), token=token, csrf=site.csrf)
    return app


def _asked(request: Request) -> Asked:
    return Asked(
        request.app.state.site, request.path_params["run"], request.path_params["stage"], dict(request.query_params)
    )


async def _home(request: Request) -> Response:
    """The one run, or a list of all."""
    site: Site = request.app.state.site
    if len(site.runs) == 1:
        return RedirectResponse(address(0, await run_in_threadpool(lambda: site.runs[0].latest), "overview"))
    return HTMLResponse(await run_in_threadpool(lambda: templates().get_template("runs.html").render(
        runs=site.runs, goto=address, report=False, verdict=overview.verdict, judged=JUDGED)))  # fmt: skip


async def _screen(request: Request) -> Response:
    screen = request.path_params["screen"]
    if screen not in SCREENS:
        raise HTTPException(404, f"there is no screen {screen!r}")
    asked, partial = _asked(request), "hx-request" in request.headers
    try:
        return HTMLResponse(await run_in_threadpool(lambda: render(screen, asked, partial=partial)))
    except UserError as error:
        said = str(error)
        return HTMLResponse(await run_in_threadpool(lambda: absent(screen, asked, said, partial=partial)), 404)


async def _verify(request: Request) -> Response:
    """The checks of the record, which read the whole run: for those who ask, by a form of this page."""
    asked = _asked(request)
    found = await run_in_threadpool(lambda: facts.checks(asked.run))
    return HTMLResponse(templates().get_template("checks.html").render(checks=found))


async def _measure(request: Request) -> Response:
    """The numbers of every token of a group, computed again: for those who ask, by a form; one group at a time."""
    asked, site = _asked(request), request.app.state.site

    def compute() -> Markup:
        step, ticket = asked.step(), asked.whole("ticket", 0) or 0
        if site.measure is None or step not in asked.stage.replayable:
            raise UserError(f"the policy before step {step} is not stored")
        key = (asked.number, asked.at, step, ticket)
        with _MEASURING:
            if key not in site.measured:
                site.measured[key] = site.measure(asked.run.directory, asked.stage.name, step, ticket)
                for old in list(site.measured)[:-KEPT]:
                    del site.measured[old]
        query = {"step": step, "ticket": ticket, "member": asked.whole("member", 0), "by": "entropy"}
        to = address(asked.number, asked.at, "tokens", **query)
        return Markup('<p data-goto="{0}"><a href="{0}">computed</a></p>').format(to)

    try:
        return HTMLResponse(await run_in_threadpool(compute))
    except UserError as error:
        return HTMLResponse(Markup('<p class="problem">{}</p>').format(visible(str(error))))


async def _group_json(request: Request) -> Response:
    """A group as it is recorded, texts and numbers, to copy."""
    asked = _asked(request)

    def read() -> dict[str, Any]:
        step, ticket = asked.step(), asked.whole("ticket", 0) or 0
        view = groups.group_view(
            asked.stage.shard(step).path, step, ticket, asked.reader(), asked.stage.table, None, asked.run.traces
        )
        return groups.as_json(view)

    return JSONResponse(await run_in_threadpool(read))


async def _events(request: Request) -> Response:
    """A stream that says when something of a run is new, from the last event that the reader had on."""
    site: Site = request.app.state.site
    number = request.path_params["run"]
    if number >= len(site.runs):
        raise HTTPException(404, "there is no such run")
    run, had = site.runs[number], request.headers.get("last-event-id", "")

    async def stream() -> AsyncIterator[str]:
        last, quiet = had, 0.0
        yield "retry: 2000\n\n"
        while not await request.is_disconnected():
            cursor = await run_in_threadpool(lambda: run.cursor)
            if cursor != last:
                last, quiet = cursor, 0.0
                news = json.dumps(await run_in_threadpool(lambda: _news(run)))
                yield f"id: {cursor}\nevent: change\ndata: {news}\n\n"
            elif quiet >= BEAT:
                quiet = 0.0
                yield ": still here\n\n"
            await asyncio.sleep(POLL)
            quiet += POLL

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def _news(run: Any) -> dict[str, Any]:
    state = run.state
    steps = run.stages[run.latest].steps if run.stages else []
    return {"state": state.word, "says": state.says, "step": steps[-1]["step"] if steps else 0}


async def _problem(request: Request, error: Exception) -> Response:
    """What is refused or is not there, in a sentence; and what no file of a run should do, whose traceback goes to the
    terminal.
    """
    what, code = str(error), 404
    if isinstance(error, HTTPException):
        what, code = error.detail, error.status_code
    elif not isinstance(error, UserError):
        what, code = f"This screen cannot be shown ({type(error).__name__}: {one_line(error)}).", 500
        what += " A file of the run may be damaged: cohort record verify says which."
    return HTMLResponse(templates().get_template("problem.html").render(what=what), code)


def serve(
    site: Site, *, host: str = "127.0.0.1", port: int | None = None, browser: bool = True, say: Any = print
) -> None:
    """Serve until Ctrl-C. On this machine alone anybody who has it may look; on another address only who has the token
    that is said once. Raises `UserError` for an address or a port that cannot be had.
    """
    import uvicorn

    alone = is_alone(host)
    token = "" if alone else secrets.token_urlsafe(24)
    bound = _listen(host, port)
    app = make_app(site, () if alone else (host, socket.gethostname()), token)
    link = f"{base_url(host, bound)}/" + (f"?token={token}" if token else "")
    say(f"cohort view: {link}" + ("" if alone else "  (who has this link can read the runs)"))
    say("Ctrl-C ends it; the run goes on")
    for run in site.runs:
        threading.Thread(target=_warm, args=(run,), daemon=True).start()
    if browser and _has_display():
        threading.Timer(0.5, lambda: webbrowser.open(link)).start()
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1)
    )
    with suppress(KeyboardInterrupt):
        server.run(sockets=[bound])


def _has_display() -> bool:
    """Whether a browser would open a window: else it may be one of the terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _warm(run: Any) -> None:
    """Read the small columns of all rollouts ahead of the first search."""
    with suppress(UserError, OSError):
        stage = run.stages[run.latest]
        stage.index.table(stage.shards)


def _listen(host: str, port: int | None) -> socket.socket:
    """A socket on the wanted port, else on the first one that is free from `PORT` on."""
    for candidate in range(PORT, PORT + 20) if port is None else ():
        with suppress(UserError):
            return listen(host, candidate)
    return listen(host, port or 0)
