"""Runs code that others wrote, with a time limit, and tells that code's mistakes from failures of the world."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

from cohort.types import InfrastructureError, UserError
from cohort.wording import one_line

THE_WORLD = (InfrastructureError, ConnectionError, TimeoutError)  # failures that may pass, never the policy's fault

Result = TypeVar("Result")


class HangsError(InfrastructureError):
    """No answer in time. The same question would hang again for as long, so it is not asked a second time."""


class BrokenCodeError(UserError):
    """Code of the user's raised something that it should not; `__cause__` is what."""


def in_time(run: Callable[[], Result], timeout_s: float | None) -> Result:
    """What `run` returns or raises; HangsError when that takes longer (None: there is no limit).

    A thread cannot be killed, so one that hangs is left behind. It does not keep the process from ending.
    """
    if timeout_s is None:
        return run()
    future: Future[Result] = Future()
    Thread(target=_fulfil, args=(future, run), daemon=True).start()
    try:
        return future.result(timeout_s)
    except TimeoutError:
        if future.done():  # `run` itself raised the TimeoutError
            raise
        raise HangsError(f"no answer within {timeout_s:g} s") from None


def _fulfil(future: Future[Result], run: Callable[[], Result]) -> None:
    try:
        future.set_result(run())
    except BaseException as error:
        future.set_exception(error)


def broken(what: str, error: BaseException, advice: str) -> BrokenCodeError:
    """The message that stops a run whose own code raised: what it was, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return BrokenCodeError(f"{what} raised {type(error).__name__}: {one_line(error)}{place}. {advice}")
