"""Ctrl-C, SIGTERM and a closed terminal while a stage trains: the first asks it to stop, a second stops it at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stopped(Exception):  # noqa: N818  (nothing went wrong)
    """A stage stops because it was asked to; what it has trained is kept."""


@dataclass(slots=True)
class StopRequest:
    """Whether somebody wants the stage to stop. It is asked where a step can be left without a trace."""

    signal: int | None = None

    def check(self) -> None:
        """Raise `Stopped` if somebody does."""
        if self.signal is not None:
            raise Stopped


@contextlib.contextmanager
def stopping(request: StopRequest, heard: Callable[[], None]) -> Iterator[None]:
    """For as long as the context lasts, the first signal becomes a request, and `heard` is called; a second one does
    what it does without us. When the context ends after a request, the signal is sent again, so that the process ends
    as it would have: by an exception, or by the signal itself.

    A signal that is ignored (`nohup`) stays so. Only the main thread can listen.
    """
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def hear(number: int, _: object) -> None:
        request.signal = number
        restore()
        heard()

    if threading.current_thread() is threading.main_thread():
        known = {number: signal.getsignal(number) for number in SIGNALS}
        before = {number: how for number, how in known.items() if how not in (signal.SIG_IGN, None)}
        for number in before:
            signal.signal(number, hear)
    try:
        yield
    except Stopped:
        pass
    finally:
        restore()
    if request.signal is not None:
        signal.raise_signal(request.signal)
        raise KeyboardInterrupt  # the caller's own handler went on, but a stage that is half done does not
