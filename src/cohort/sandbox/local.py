"""The executor on this machine, and the launcher as it sees it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

from cohort.sandbox import values
from cohort.sandbox.contract import WALL_PER_CPU, Cases, Isolation, Level, Limits, Run, SandboxError, require
from cohort.sandbox.session import Session, unreachable
from cohort.sandbox.wire import ERROR, JOB, MEMORY, VALUE, Channel, pack

_SOURCE = str(Path(__file__).parents[2])  # where the package `cohort` is
_START_S = 60.0
_END_S = 30.0
_LARGEST_CASE = 1 << 30  # bytes


@dataclasses.dataclass(slots=True)
class _Budget:
    """What is left for all cases together: processor time, and a time by the clock."""

    left_s: float
    deadline: float


class Sandbox:
    """Runs untrusted Python on this machine, one process at a time. An Executor, and a context manager.

    A launcher process starts with the first use and serves until `close`. Raises UserError when the machine's isolation
    is below `minimum`; `without` names features to do without (namespaces, unprivileged, landlock, seccomp, cgroup),
    for tests and for machines where one misbehaves. Threads may share a sandbox; they wait for each other.
    """

    def __init__(self, limits: Limits | None = None, minimum: Level = "filtered", without: Sequence[str] = ()) -> None:
        self._limits = limits or Limits()
        self._minimum = minimum
        self._without = tuple(without)
        self._lock = threading.Lock()
        self._launcher: _Launched | None = None
        self._owner = os.getpid()

    @property
    def isolation(self) -> Isolation:
        """What this machine reaches. Starts the launcher if there is none."""
        with self._lock:
            return self._started().isolation

    def run(self, code: str, stdin: str, time_s: float) -> Run:
        """See Executor.run."""
        given = stdin.encode("utf-8", "surrogatepass")
        with self._lock:
            with self._session(code, None, given, time_s) as session:
                try:
                    session.wait(time_s, time.monotonic() + WALL_PER_CPU * time_s)
                    run = self._outcome(session, time_s)
                except TimeoutError:
                    run = Run("timeout", bytes(session.output), message=f"more than {time_s:g} s")
            return dataclasses.replace(run, used_s=session.used_s)  # all of it is known once the process has ended

    def call(
        self, code: str, function: str, cases: Cases, time_s: float, total_s: float, go_on: Callable[[Run], bool]
    ) -> list[Run]:
        """See Executor.call."""
        runs: list[Run] = []
        budget = _Budget(total_s, time.monotonic() + WALL_PER_CPU * total_s)
        with self._lock:
            while len(runs) < len(cases):
                if budget.left_s <= 0 or time.monotonic() >= budget.deadline:
                    runs.append(Run("timeout", message=f"more than {total_s:g} s for all cases together"))
                    continue
                with closing(self._serve(code, function, cases[len(runs) :], time_s, budget)) as served:
                    for run in served:
                        runs.append(run)
                        if not go_on(run):
                            return runs
        return runs

    def close(self) -> None:
        """End the launcher. It starts again with the next use."""
        with self._lock:
            self._discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self, code: str, function: str, cases: Cases, time_s: float, budget: _Budget) -> Generator[Run]:
        """One process that answers case after case until it dies or takes too long."""
        with self._session(code, function, None, budget.left_s) as session:
            try:
                for case in cases:
                    session.send(pack(VALUE, values.encode(list(case), _LARGEST_CASE)))
                    limit_s = min(time_s, budget.left_s - session.used_s)
                    try:
                        frame = session.frame(limit_s, min(time.monotonic() + WALL_PER_CPU * limit_s, budget.deadline))
                    except TimeoutError:
                        yield Run("timeout", message=f"more than {limit_s:g} s")
                        return
                    if frame is None or session.too_much:
                        yield self._outcome(session, budget.left_s, expected=True)
                        return
                    began = time.monotonic()
                    run = _answer(*frame)
                    budget.left_s -= time.monotonic() - began  # to take in a large value is a cost of it
                    yield run
            finally:
                budget.left_s -= session.used_s

    @contextmanager
    def _session(self, code: str, function: str | None, stdin: bytes | None, time_s: float) -> Iterator[Session]:
        """A confined process that has got its job. When the sandbox fails, the launcher is replaced at the next use."""
        try:
            launcher = self._started()
            most = self._limits.output_kb << 10
            job = json.dumps({"code": code, "function": function}).encode()
            with Session(launcher.channel, next(launcher.runs), _cpu_limit(time_s), stdin, most) as session:
                session.send(pack(JOB, job))
                yield session
        except SandboxError:
            self._discard()
            raise

    def _started(self) -> _Launched:
        if self._launcher is not None and os.getpid() != self._owner:
            self._launcher.channel.close()  # this is a fork: the launcher belongs to the process that started it
            self._launcher = None
        if self._launcher is None:
            self._launcher = _Launched(self._limits, self._minimum, self._without)
            self._owner = os.getpid()
        return self._launcher

    def _discard(self) -> None:
        launcher, self._launcher = self._launcher, None
        if launcher is not None and os.getpid() == self._owner:
            launcher.close()

    def _outcome(self, session: Session, time_s: float, expected: bool = False) -> Run:
        """What the end of a process means. `expected`: it should have answered first."""
        output = bytes(session.output)
        if session.too_much or session.ended is None:
            return Run("error", output, message=f"wrote more than {self._limits.output_kb} KiB")
        for kind, content in session.last_frames():
            if kind in (MEMORY, ERROR):
                return _answer(kind, content, output)
        number, status = session.ended["signal"], session.ended["exit"]
        if number in (signal.SIGKILL, signal.SIGXCPU) and session.used_s > _cpu_limit(time_s) - 1:
            return Run("timeout", output, message="out of processor time")
        if number == signal.SIGKILL:
            return Run("memory", output, message="killed by the system for its memory")
        if number is not None:
            return Run("error", output, message=f"killed by {_name_of(number)}")
        if status or expected:
            return Run("error", output, message=f"it ended with exit status {status}")
        return Run("ok", output)


def _answer(kind: bytes, content: bytes, output: bytes = b"") -> Run:
    """A frame of the candidate: a value, or why there is none."""
    if kind == MEMORY:
        return Run("memory", output, message="out of memory")
    if kind == ERROR:
        return Run("error", output, message=content.decode("utf-8", "replace"))
    if kind == VALUE:
        try:
            return Run("ok", value=values.decode(content))
        except ValueError as error:
            return Run("error", message=f"it wrote to the result pipe: {error}")
    return Run("error", output, message="it wrote to the result pipe")


def _name_of(number: int) -> str:
    """Of the real-time signals only the first and the last have names."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _cpu_limit(time_s: float) -> int:
    return math.ceil(time_s) + 1


class _Launched:
    """A running launcher: started once, asked what it reaches, ended by closing its channel.

    Raises SandboxError when it does not start, UserError when it reaches less than `minimum`.
    """

    def __init__(self, limits: Limits, minimum: Level, without: Sequence[str]) -> None:
        self.runs = itertools.count(1)  # the number of the next run
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                _command(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env={},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # what kills the grader's group must not keep the keeper from cleaning up
            )
        except OSError as error:
            ours.close()
            raise SandboxError(f"the sandbox's launcher cannot be started: {error}") from error
        finally:
            theirs.close()
        self.channel = Channel(ours)
        try:
            self.isolation = self._hello(limits, without)
            require(self.isolation, minimum)
        except BaseException:
            self.close()
            raise

    def _hello(self, limits: Limits, without: Sequence[str]) -> Isolation:
        try:
            self.channel.send(limits=dataclasses.asdict(limits), without=list(without))
            if not select.select([self.channel.connection], [], [], _START_S)[0]:
                raise SandboxError(f"the sandbox's launcher has not answered within {_START_S:g} s")
            answer = self.channel.receive()
        except OSError as error:
            raise unreachable(error) from error
        if answer is None or "isolation" not in answer:
            reason = "it ended at its start" if answer is None else answer["failed"]
            raise SandboxError(f"the sandbox does not work here: {reason}")
        return Isolation(**answer["isolation"])

    def close(self) -> None:
        """End it and wait until it has cleaned up."""
        self.channel.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _command(channel: int) -> list[str]:
    """The interpreter itself, not the virtual environment's link to it, isolated from the user's files and settings."""
    found = f"sys.path.insert(0, {_SOURCE!r}); from cohort.sandbox.keeper import main; del sys.path[0]"
    run = f"import sys; {found}; main({channel})  # for process {os.getpid()}"
    return [os.path.realpath(sys.executable), "-I", "-S", "-c", run]
