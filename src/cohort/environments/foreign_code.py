"""Runs code that others wrote, with a time limit, and tells that code's mistakes from failures of the world."""

from __future__ import annotations

import traceback

from cohort.patience import HangsError, in_time
from cohort.types import InfrastructureError, UserError
from cohort.wording import one_line

__all__ = ["THE_WORLD", "BrokenCodeError", "HangsError", "broken", "in_time"]

THE_WORLD = (InfrastructureError, ConnectionError, TimeoutError)  # failures that may pass, never the policy's fault


class BrokenCodeError(UserError):
    """Code of the user's raised something that it should not; `__cause__` is what."""


def broken(what: str, error: BaseException, advice: str) -> BrokenCodeError:
    """The message that stops a run whose own code raised: what it was, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return BrokenCodeError(f"{what} raised {type(error).__name__}: {one_line(error)}{place}. {advice}")
