"""The launcher as the grader sees it: started once, asked what it reaches, ended by closing its channel."""

from __future__ import annotations

import dataclasses
import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cohort.sandbox.channel import Channel
from cohort.sandbox.contract import Isolation, Level, Limits, SandboxError, require

__all__ = ["Launched"]

_SOURCE = str(Path(__file__).parents[2])  # where the package `cohort` is
_START_S = 60.0
_END_S = 30.0


class Launched:
    """A running launcher. Raises SandboxError when it does not start, UserError when it reaches less than `minimum`."""

    def __init__(self, limits: Limits, minimum: Level, without: Sequence[str]) -> None:
        self._runs = 0
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
            raise SandboxError(f"the sandbox's launcher cannot be reached: {error}") from error
        if answer is None or "isolation" not in answer:
            reason = "it ended at its start" if answer is None else answer["failed"]
            raise SandboxError(f"the sandbox does not work here: {reason}")
        return Isolation(**answer["isolation"])

    def next_run(self) -> int:
        """A number for the next run."""
        self._runs += 1
        return self._runs

    def close(self) -> None:
        """End it and wait until it has cleaned up."""
        self.channel.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """Let go of it in a fork of the process that started it."""
        self.channel.close()


def _command(channel: int) -> list[str]:
    """The interpreter itself, not the virtual environment's link to it, isolated from the user's files and settings."""
    found = f"sys.path.insert(0, {_SOURCE!r}); from cohort.sandbox.keeper import main; del sys.path[0]"
    run = f"import sys; {found}; main({channel})  # for process {os.getpid()}"
    return [os.path.realpath(sys.executable), "-I", "-S", "-c", run]
