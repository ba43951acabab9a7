"""Run a function on hostile text in a child that is killed when it takes too much time or memory.

    guarded("cohort.rewards.verifiers.math.compare:compare", 2.0, gold="72", answer="9^{9^{9}}")    # Ended("timeout")

A call costs about 0.1 ms on top of the function's own time. The time limit is one of processor time, so what a text is
worth does not depend on how busy the machine is.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
import threading
import time
from typing import Any, NamedTuple

from cohort.rewards.workers.channel import receive, send, start
from cohort.sandbox import WALL_PER_CPU
from cohort.types import InfrastructureError

__all__ = ["Ended", "end_guards", "guarded"]

_START_S = 120.0  # for the server's imports on a busy machine
_lock = threading.Lock()
_server: _Server | None = None


class _Server(NamedTuple):
    """A running fork server and the channel to it. A fork of `owner` must not speak to it."""

    owner: int
    process: subprocess.Popen[bytes]
    connection: socket.socket


class Ended(Exception):  # noqa: N818 (an event: the callers give it a label)
    """The call was ended: `how` is "timeout", "memory" or "crash". It would end so again."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


def guarded(function: str, cpu_s: float, /, **arguments: Any) -> Any:
    """`function`, "module:function", called with `arguments`; they and the result are plain JSON values.

    Raises Ended, InfrastructureError when the machine could not run it, RuntimeError when the function raised.
    """
    wall_s = cpu_s * WALL_PER_CPU
    call = {"function": function, "arguments": arguments, "cpu_s": cpu_s, "wall_s": wall_s}
    request = json.dumps(call).encode()
    with _lock:
        reply = _ask(request, 2 * wall_s + _START_S)
    if "result" in reply:
        return reply["result"]
    how = reply.get("ended")
    if how in ("timeout", "memory", "crash"):
        raise Ended(how)
    if how == "starved":
        raise InfrastructureError(f"the machine gave it less than {cpu_s:g} s of processor time in {wall_s:g} s")
    if how is not None:
        raise InfrastructureError("its process was killed from outside; look for too little memory")
    raise RuntimeError(f"{function} raised {reply['raised']}")


def end_guards() -> None:
    """End this process's server and its child. The next call starts another."""
    with _lock:
        _end()


def _ask(request: bytes, limit_s: float) -> dict[str, Any]:
    """One call, with one more try if the server is gone: it ends when it was idle for long."""
    global _server
    for again in (True, False):
        if _server is None or _server.owner != os.getpid():
            _server = _started()
        deadline = time.monotonic() + limit_s
        try:
            send(_server.connection, request, deadline)
            reply: dict[str, Any] = json.loads(receive(_server.connection, deadline))
            return reply
        except (EOFError, OSError) as error:
            _end()
            if not again:
                raise InfrastructureError(f"the process that guards rewards is gone: {error}") from None
        except BaseException:  # Ctrl-C: the reply that is still to come must not be taken for the next call's
            _end()
            raise
    raise AssertionError


def _started() -> _Server:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": {**os.environ, "PYTHONHASHSEED": "0"}}
    try:
        return _Server(os.getpid(), *start("cohort.rewards.guarded.server", sys.path, **quiet))
    except OSError as error:
        raise InfrastructureError(f"the process that guards rewards cannot be started: {error}") from error


def _end() -> None:
    global _server
    server, _server = _server, None
    if server is None or server.owner != os.getpid():
        return
    server.connection.close()  # an idle server ends its child and itself; one that is busy is killed with its child
    try:
        server.process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()


atexit.register(end_guards)
