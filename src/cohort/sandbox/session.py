"""One candidate process as the grader sees it: bytes go in; output and frames come out, until the process ends."""

from __future__ import annotations

import os
import selectors
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Self

from cohort.sandbox.contract import SandboxError
from cohort.sandbox.wire import FAILED, HEADER, READY, Channel

_LAUNCHER_S = 60.0  # the launcher's time to answer, to start a process or to end one (an idle machine: milliseconds)
_SHORT_S = 0.02  # a call that took less is not asked for its processor time
_NEARLY = 0.02  # a process with less than this share of its processor time left has used it up
_READING, _WRITING = 0, 1  # the ends of a pipe, as os.pipe() returns them
_CHUNK = 1 << 16
_MOST_FRAMES = 8  # more frames than this that nobody asked for are an attack


class Session:
    """A context manager: inside it the process is confined and waits for its job, after it the process is gone.

    `stdin` None stands for a process whose standard input and output lead nowhere. `output` is what it has printed.
    `too_much` says that it wrote more than `most` bytes there, or a frame of more. `ended` is what the launcher says of
    its end: exit, signal, used_s. Every method raises SandboxError when the launcher fails; it must be replaced then.
    """

    def __init__(self, channel: Channel, run: int, cpu_s: int, stdin: bytes | None, most: int) -> None:
        self.output = bytearray()
        self.too_much = False
        self.ended: dict[str, Any] | None = None
        self.used_s = 0.0  # of processor time, when the launcher was last asked
        self._asked = False
        self._channel, self._run, self._most = channel, run, most
        self._frames: deque[tuple[bytes, bytes]] = deque()
        self._partial = bytearray()
        self._unsent: dict[int, bytearray] = {}
        self._ours: set[int] = set()
        self._selector = selectors.DefaultSelector()
        theirs: list[int] = []
        try:
            if stdin is None:
                theirs = [os.open(os.devnull, os.O_RDWR)] * 2
                self._stdin = self._stdout = -1
            else:
                self._stdin, self._stdout = self._pipe(theirs, _WRITING), self._pipe(theirs, _READING)
            self._jobs, self._results = self._pipe(theirs, _WRITING), self._pipe(theirs, _READING)
            for descriptor in self._ours & {self._stdout, self._results}:
                self._selector.register(descriptor, selectors.EVENT_READ, partial(self._read, descriptor))
            self._selector.register(channel.connection, selectors.EVENT_READ, self._read_channel)
            channel.send(theirs, run=run, cpu_s=cpu_s)
        except OSError as error:
            self._close()
            raise SandboxError(f"the sandbox could not start a process: {error}") from error
        finally:
            for descriptor in set(theirs):
                os.close(descriptor)
        if stdin is not None:
            self._send(self._stdin, stdin)

    def __enter__(self) -> Self:
        patience = time.monotonic() + _LAUNCHER_S
        try:
            while not (self._frames or self.over):
                self._turn(patience)
        except SandboxError:
            self._close()
            raise
        kind, content = self._frames.popleft() if self._frames else (FAILED, b"it ended at its start")
        if kind != READY:
            self._end()
            raise SandboxError(f"a process could not be confined: {content.decode(errors='replace')}")
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.ended is not None or self.too_much

    def send(self, frame: bytes) -> None:
        """Queue a frame for the process; it is delivered while somebody waits."""
        self._send(self._jobs, frame)

    def frame(self, cpu_s: float, deadline: float) -> tuple[bytes, bytes] | None:
        """The next frame; None when it is over without one. TimeoutError as in `wait`."""
        self.wait(cpu_s, deadline, lambda: bool(self._frames))
        return self._frames.popleft() if self._frames else None

    def last_frames(self) -> list[tuple[bytes, bytes]]:
        """The frames that nobody has taken."""
        return list(self._frames)

    def wait(self, cpu_s: float, deadline: float, done: Callable[[], bool] = lambda: False) -> None:
        """Until it is over, or `done`. TimeoutError when it has used `cpu_s` more of processor time, and at `deadline`.
        The launcher is asked for that time only once so much has passed by the clock that it may be used up.
        """
        before, began = self.used_s, time.monotonic()
        look = began + cpu_s
        while not (done() or self.over):
            now = time.monotonic()
            if now >= look:
                left = cpu_s - (self._ask() - before)
                if left < cpu_s * _NEARLY:
                    raise TimeoutError
                look = now + left
            if now >= deadline:
                raise TimeoutError
            self._turn(min(look, deadline), give_up=False)
        if not self.over and time.monotonic() - began > _SHORT_S:
            self._ask()

    def _ask(self) -> float:
        """The processor time that it has used."""
        try:
            self._channel.send(ask=self._run)
        except OSError as error:
            raise unreachable(error) from error
        self._asked = True
        patience = time.monotonic() + _LAUNCHER_S
        while self._asked and self.ended is None:
            self._turn(patience)
        return self.used_s

    def _pipe(self, theirs: list[int], ours: int) -> int:
        """A new pipe, of which our end is the one for reading or writing; the other is added to `theirs`."""
        ends = os.pipe()
        theirs.append(ends[1 - ours])
        self._ours.add(ends[ours])
        os.set_blocking(ends[ours], False)
        return ends[ours]

    def _send(self, descriptor: int, data: bytes) -> None:
        if descriptor in self._unsent:
            self._unsent[descriptor] += data
        elif descriptor in self._ours:
            self._unsent[descriptor] = bytearray(data)
            self._selector.register(descriptor, selectors.EVENT_WRITE, partial(self._write, descriptor))

    def _turn(self, until: float, give_up: bool = True) -> None:
        """Take in what happens next. SandboxError when nothing does before `until`, unless that may be."""
        events = self._selector.select(max(until - time.monotonic(), 0))
        if not events and give_up:
            raise SandboxError("the sandbox's launcher does not answer")
        for key, _ in events:
            if key.fileobj in self._selector.get_map():  # else it was dropped by what came before it
                key.data()

    def _write(self, descriptor: int) -> None:
        unsent = self._unsent[descriptor]
        try:
            del unsent[: os.write(descriptor, unsent[:_CHUNK])]
        except BrokenPipeError:  # it does not want to read; that is its right
            unsent.clear()
        if not unsent:
            if descriptor == self._stdin:
                self._drop(descriptor)  # the end of its input
            else:
                del self._unsent[descriptor]
                self._selector.unregister(descriptor)

    def _read(self, descriptor: int) -> bool:
        """Take in what is there; False when that is nothing."""
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._drop(descriptor)
        elif descriptor == self._stdout:
            self.output += data
            self.too_much |= len(self.output) > self._most
        else:
            self._partial += data
            self._split()
        return bool(data)

    def _split(self) -> None:
        while len(self._partial) >= HEADER.size and not self.too_much:
            kind, size = HEADER.unpack_from(self._partial)
            end = HEADER.size + size
            if size <= self._most and len(self._partial) < end:
                return
            self._frames.append((kind, bytes(self._partial[HEADER.size : end])))
            del self._partial[:end]
            self.too_much = size > self._most or len(self._frames) > _MOST_FRAMES

    def _read_channel(self) -> None:
        while True:
            try:
                message = self._channel.receive()
            except (OSError, ValueError) as error:
                raise unreachable(error) from error
            if message is None:
                raise SandboxError("the sandbox's launcher has ended")
            self._take(message)
            if not self._channel.waiting():  # a message that is in memory already would not wake the selector
                return

    def _take(self, message: dict[str, Any]) -> None:
        if "failed" in message:
            raise SandboxError(f"the sandbox could not start a process: {message['failed']}")
        self.used_s, self._asked = message["used_s"], False
        if "exit" in message:
            self.ended = message
            for descriptor in (self._stdout, self._results):  # what it wrote before its end is still in the pipes
                while descriptor in self._ours and not self.too_much and self._read(descriptor):
                    continue

    def _end(self) -> None:
        """Kill the process if it lives, wait until it is gone, and give everything back."""
        try:
            if self.ended is None:
                for descriptor in self._ours & {self._stdout, self._results}:  # it may write on until it is dead
                    self._drop(descriptor)
                self._channel.send(kill=self._run)
                patience = time.monotonic() + _LAUNCHER_S
                while self.ended is None:
                    self._turn(patience)
        except OSError as error:
            raise unreachable(error) from error
        finally:
            self._close()

    def _drop(self, descriptor: int) -> None:
        if descriptor in self._selector.get_map():
            self._selector.unregister(descriptor)
        self._unsent.pop(descriptor, None)
        self._ours.discard(descriptor)
        os.close(descriptor)

    def _close(self) -> None:
        for descriptor in list(self._ours):
            self._drop(descriptor)
        self._selector.close()


def unreachable(error: Exception) -> SandboxError:
    """What a channel that does not work comes to."""
    return SandboxError(f"the sandbox's launcher cannot be reached: {error}")
