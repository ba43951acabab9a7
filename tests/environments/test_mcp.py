"""Tools of MCP servers, over standard input and HTTP: `make test-agents`, else skipped."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest

from cohort.environments.formats import FORMATS
from cohort.environments.mcp import Session, mcp_tools
from cohort.environments.tools import Tools
from cohort.environments.world import build_tools
from cohort.patience import HangsError
from cohort.types import InfrastructureError, Prompt, UserError

pytest.importorskip("mcp")

SERVER = """
import os, sys, time
from mcp.server.mcpserver import MCPServer

server, told = MCPServer("counting"), []

@server.tool()
def count(step: int) -> str:
    "Count up, and say how far."
    told.append(step)
    return str(sum(told))

@server.tool()
def fails(why: str) -> str:
    "Fail."
    raise ValueError(why)

@server.tool()
def dies() -> str:
    "Die."
    os._exit(1)

@server.tool()
def hangs() -> str:
    "Hang."
    time.sleep(60)

if len(sys.argv) > 1:
    import uvicorn
    uvicorn.run(server.streamable_http_app(), port=int(sys.argv[1]), log_level="error")
else:
    server.run()
"""
HERMES = FORMATS["hermes"]
ASKED = Prompt.make(text="x")


def call(name, **arguments):
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    file = tmp_path_factory.mktemp("mcp") / "server.py"
    file.write_text(f"import sys\nsys.path += {sys.path!r}\n{SERVER}")  # a server gets no PYTHONPATH
    return f"{sys.executable} {file}"


@pytest.fixture(scope="module")
def tools(program):
    return Tools(build_tools(["mcp"], {"mcp": {"servers": [program], "timeout_s": 120.0}}, 30.0), HERMES, 0)


def test_a_rollout_has_a_session_of_its_own(tools):
    first, second = (tools.reset(ASKED, seed) for seed in (1, 2))
    try:
        said = [tools.step(state, call("count", step=3)).messages[0]["content"] for state in (first, first, second)]
        assert said == ["3", "6", "3"]
    finally:
        tools.end(first)
        tools.end(second)


def test_what_fails_in_a_tool_is_said_and_wrong_arguments_never_reach_it(tools):
    state = tools.reset(ASKED, 1)
    try:
        (one,) = tools.step(state, call("fails", why="no such city")).calls
        assert one.failed
        assert "error" in one.result.lower()
        (one,) = tools.step(state, call("count", step="three")).calls
        assert one.failed
        assert "three" in one.result
    finally:
        tools.end(state)


def test_a_server_that_dies_is_the_worlds_failure(tools):
    state = tools.reset(ASKED, 1)
    with pytest.raises(InfrastructureError, match="MCP server"):
        tools.step(state, call("dies"))
    tools.end(state)


def test_a_server_that_hangs_has_a_deadline(program):
    session = Session(program, 120.0)
    assert session.call("count", {"step": 1}) == "1"
    session.timeout_s = 0.5
    began = time.monotonic()
    with pytest.raises(HangsError, match=r"within 0\.5 s"):
        session.call("hangs", {})
    assert time.monotonic() - began < 10
    session.close()


def test_over_http(program):
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    process = subprocess.Popen([*program.split(), str(port)])
    try:
        for _ in range(900):
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        tools = Tools(mcp_tools([f"http://127.0.0.1:{port}/mcp"], 120.0), HERMES, 0)
        state = tools.reset(ASKED, 1)
        assert tools.step(state, call("count", step=2)).messages[0]["content"] == "2"
        tools.end(state)
    finally:
        process.kill()


@pytest.mark.parametrize(
    "servers", ["", [], ["no-such-program-at-all"], ["http://127.0.0.1:9/mcp"], [f"{sys.executable} -c pass"]]
)
def test_a_server_that_is_not_there_is_one_sentence(servers):
    with pytest.raises(UserError) as caught:
        mcp_tools(servers, 10.0)
    assert "\n" not in str(caught.value)
    assert threading.active_count() < 50
