"""Waiting for what others wrote, with a time limit."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from threading import Thread, current_thread, main_thread
from typing import TYPE_CHECKING, Any, TypeVar

from cohort.types import InfrastructureError

if TYPE_CHECKING:
    import asyncio

Result = TypeVar("Result")


class HangsError(InfrastructureError):
    """No answer in time. The same question would hang again for as long, so it is not asked a second time."""


def in_time(run: Callable[[], Result], timeout_s: float | None) -> Result:
    """What `run` returns or raises; HangsError when that takes longer (None: there is no limit).

    A thread cannot be killed, so one that hangs is left behind. It does not keep the process from ending.
    """
    if timeout_s is None:
        return run()
    future = in_a_thread(run)
    try:
        return future.result(timeout_s)
    except TimeoutError:
        if future.done():  # `run` itself raised the TimeoutError
            raise
        raise HangsError(f"no answer within {timeout_s:g} s") from None


def in_a_thread(run: Callable[[], Result]) -> Future[Result]:
    """What `run` gives or raises in a thread, which ends with the process."""
    future: Future[Result] = Future()

    def fulfil() -> None:
        try:
            future.set_result(run())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=fulfil, daemon=True).start()
    return future


def awaited(waiting: Awaitable[Result]) -> Result:
    """What something that is awaited gives, also where an event loop is running already, as in a notebook."""
    import asyncio  # nothing that those without async functions should load

    async def wait() -> Result:
        return await waiting

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(wait())
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, wait()).result()


@cache
def loop_called(name: str) -> asyncio.AbstractEventLoop:
    """An event loop of this process in a thread of that name, the same one whenever it is asked for."""
    import asyncio

    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, name=name, daemon=True).start()
    return loop


def within(run: Callable[[], Result], timeout_s: float) -> Result:
    """What `run`, which is quick mostly, returns or raises; HangsError when that takes longer.

    In the main thread an alarm breaks it off, which costs nothing while there is time. Elsewhere, or where something
    else uses the alarm, `run` goes on in a thread that nobody waits for.
    """
    alarm = getattr(signal, "SIGALRM", None)
    if alarm is None or current_thread() is not main_thread():
        return in_time(run, timeout_s)
    if signal.getsignal(alarm) != signal.SIG_DFL or signal.getitimer(signal.ITIMER_REAL)[0]:
        return in_time(run, timeout_s)
    running = True

    def ring(*_: Any) -> None:
        if running:  # not when it rings on the way out
            raise HangsError(f"no answer within {timeout_s:g} s")

    signal.signal(alarm, ring)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        return run()
    finally:
        running = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(alarm, signal.SIG_DFL)
