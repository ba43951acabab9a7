"""One worker process as the pool sees it: start, ask, kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Literal

from cohort.remote_code import in_workers
from cohort.rewards.calling.reward import Reward
from cohort.rewards.failure import RewardFailure
from cohort.rewards.workers.channel import receive, send, start
from cohort.rewards.workers.surroundings import advice
from cohort.sandbox import WALL_PER_CPU
from cohort.types import UserError

_KEEPER_S = 10.0  # what a keeper may take; it takes milliseconds

Kind = Literal["timeout", "death", "unavailable"]

# Fixed string hashes, so that a reward's set order is the same in every worker; one thread each by default.
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(eq=False)
class WorkerTrouble(Exception):  # noqa: N818 (an event, handled by the lane)
    """The world failed while `reward` ran (None: while the worker started). It hung, it died, or what it asked (a
    sandbox, a server) was unavailable; only then is the worker still good. `what` says it, `hint` what to do.
    """

    kind: Kind
    what: str
    hint: str
    reward: str | None


class WorkerProcess:
    """A running worker. On Linux it dies with the thread that started it, so that thread must stay with it.

    It starts with the pickled rewards, and with the trainer's import path, directory and environment but for what is
    `withheld` of that.
    """

    def __init__(
        self,
        rewards: bytes,
        path: Sequence[str],
        directory: str,
        output: IO[bytes] | int,
        start_timeout_s: float,
        withheld: Sequence[str] = (),
    ) -> None:
        self._rewards, self._start_timeout_s, self._withheld = rewards, start_timeout_s, withheld
        self._killed = False
        self._process, self._connection = start(
            "cohort.rewards.workers.worker",
            path,
            stdout=output,
            stderr=output,
            cwd=directory,
            env={**_ENVIRONMENT, **{name: value for name, value in os.environ.items() if name not in withheld}},
            start_new_session=True,  # Ctrl-C in the terminal spares it, and one kill takes its children too
        )

    def load(self) -> None:
        """Send the rewards and wait until the worker has loaded them, the user's imports included."""
        in_workers.update(self.ask(self._rewards, self._start_timeout_s, None)["code"])

    def kill(self) -> None:
        """End the process and all that it started, at once. May be called twice, and from any thread."""
        if not self._killed:
            self._killed = True
            if sys.platform == "linux":  # its keeper ends the others, and then itself
                self._process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_KEEPER_S)
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):  # all of them have ended; waiting must not depend on that
                self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kill it and give the channel back. Only for the thread that uses the channel."""
        self.kill()
        self._connection.close()

    def ask(self, message: bytes | None, limit_s: float, reward: str | None) -> dict[str, Any]:
        """Send a message, if there is one, and return the next reply, that of `reward`.

        Raises RewardFailure, UserError or WorkerTrouble, also when there is no reply within `limit_s` seconds.
        """
        deadline = time.monotonic() + limit_s
        try:
            if message is not None:
                send(self._connection, message, deadline)
            reply = json.loads(receive(self._connection, deadline))
        except TimeoutError:
            hint = "raise its timeout_s if that can be normal" if reward else "look for slow imports in the rewards"
            raise WorkerTrouble("timeout", f"took more than {limit_s:g} s", hint, reward) from None
        except (EOFError, OSError, ValueError):
            hint = "look for a crash, an exit or too little memory"
            raise WorkerTrouble("death", f"ended its worker process ({self._end()})", hint, reward) from None
        if "failure" in reply:
            name, problem, *shown = reply["failure"]
            raise RewardFailure(name, problem + advice(problem, self._withheld), *shown)
        if "user_error" in reply:
            raise UserError(reply["user_error"] + advice(reply["user_error"], self._withheld))
        if "infrastructure" in reply:
            what = f"could not judge ({reply['infrastructure']})"
            raise WorkerTrouble("unavailable", what, "check what it depends on", reward)
        return reply

    def _end(self) -> str:
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "it closed its channel"
        if code < 0:
            with suppress(ValueError):
                return f"killed by {signal.Signals(-code).name}"
        return f"exit status {code}"


def limit_s(reward: Reward, completions: int) -> float:
    """Wall-clock seconds that a reward may take to score a group of so many completions."""
    return reward.timeout_s + completions * WALL_PER_CPU * reward.completion_timeout_s
