"""The server side of `cohort.rewards.guarded`: a small process that runs functions in children it can kill.

It imports a function's module once and then forks, so a child starts in milliseconds with everything loaded. One child
serves call after call, each under a limit of processor time. After a call that ends badly, and after some hundred
others, the next call gets a new child: no answer can spoil the process for another one. It is an interpreter of its own
rather than a fork of the reward worker, which may have threads and user code in it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from cohort.rewards.workers.channel import attach, die_with, leave, receive, send
from cohort.wording import one_line

_CALLS = 500  # of one child; then its caches are thrown away with it
_MEMORY = 2**30  # bytes that a child may have beyond what the server has
_IDLE_S = 300.0  # a server that nobody asks for so long ends; the next call starts another
_ENDS = {int(signal.SIGPROF): "timeout", int(signal.SIGKILL): "killed"}  # a child that ends otherwise has crashed


def main(channel: int, parent: int) -> None:
    """Serve the process at the other end of the file descriptor `channel` until it closes or `parent` dies."""
    connection = attach(channel, parent)
    server = _Server(connection)
    with suppress(EOFError, OSError):
        while select.select([connection], [], [], _IDLE_S)[0]:
            send(connection, json.dumps(server.answer(receive(connection))).encode())
    server.end_child()
    leave()


@dataclass(slots=True)
class _Child:
    pid: int
    connection: socket.socket
    calls: int = 0


@dataclass(slots=True)
class _Server:
    connection: socket.socket
    child: _Child | None = None
    modules: set[str] = field(default_factory=set)

    def answer(self, request: bytes) -> dict[str, Any]:
        """The reply to one call: {"result": ...}, {"ended": how} or {"raised": what}."""
        call = json.loads(request)
        try:
            self._import(call["function"].partition(":")[0])
        except Exception as error:
            return {"raised": f"{type(error).__name__}: {one_line(error)}"}
        fresh = self.child is None
        reply = self._ask(request, call["wall_s"])
        if not fresh and reply.get("ended") in ("memory", "crash"):  # what earlier calls left may have done it
            reply = self._ask(request, call["wall_s"])
        return reply

    def end_child(self, kill: bool = True) -> int:
        """End the child, if there is one, or wait for its end. Returns the signal that it died of, 0 if it had none."""
        if self.child is None:
            return 0
        child, self.child = self.child, None
        if kill:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        status = os.waitpid(child.pid, 0)[1]
        child.connection.close()
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0

    def _import(self, module: str) -> None:
        if module not in self.modules:
            self.end_child()  # so that the next one has the module
            warm_up = getattr(importlib.import_module(module), "warm_up", None)
            if warm_up is not None:
                warm_up()
            self.modules.add(module)
            gc.collect()
            gc.freeze()  # what is there now is never looked at again, so children share its memory

    def _ask(self, request: bytes, wall_s: float) -> dict[str, Any]:
        if self.child is None:
            self.child = self._fork()
        self.child.calls += 1
        deadline = time.monotonic() + wall_s
        try:
            send(self.child.connection, request, deadline)
            reply: dict[str, Any] = json.loads(receive(self.child.connection, deadline))
        except TimeoutError:
            self.end_child()
            return {"ended": "starved"}
        except (EOFError, OSError, ValueError):
            how = self.end_child(kill=False)  # it has closed its end of the channel, so it is ending
            return {"ended": _ENDS.get(how, "crash")}
        if "result" not in reply or self.child.calls >= _CALLS:
            self.end_child()
        return reply

    def _fork(self) -> _Child:
        ours, theirs = socket.socketpair()
        server = os.getpid()
        pid = os.fork()
        if pid:
            theirs.close()
            return _Child(pid, ours)
        try:
            ours.close()
            self.connection.close()
            die_with(server)
            _limit()
            _work(theirs)
        finally:
            os._exit(1)


def _limit() -> None:
    """No files, no core dumps, and so much memory (where the system can say how much there is)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):
        with open("/proc/self/statm", encoding="utf-8") as file:
            pages = int(file.read().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _work(connection: socket.socket) -> None:
    """The child: run one call after the other. The timer ends the process, whatever it is doing."""
    while True:
        call = json.loads(receive(connection))
        module, _, name = call["function"].partition(":")
        signal.setitimer(signal.ITIMER_PROF, call["cpu_s"])
        try:
            function: Callable[..., Any] = getattr(importlib.import_module(module), name)
            reply = json.dumps({"result": function(**call["arguments"])})
        except MemoryError:
            reply = '{"ended": "memory"}'
        except Exception as error:
            reply = json.dumps({"raised": f"{type(error).__name__}: {one_line(error)}"})
        signal.setitimer(signal.ITIMER_PROF, 0)
        send(connection, reply.encode())
