"""Async reward functions: the calls for a group's completions wait at the same time.

This module is imported when there is such a function: asyncio is nothing that other workers should load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

__all__ = ["awaited"]


def awaited(calls: Sequence[Awaitable[Any]]) -> list[Any]:
    """What the calls give, in their order. The first that raises ends the others, and its exception is raised."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_all(calls))
    with ThreadPoolExecutor(1) as thread:  # a notebook has a loop that is running already
        return thread.submit(asyncio.run, _all(calls)).result()


async def _all(calls: Sequence[Awaitable[Any]]) -> list[Any]:
    return list(await asyncio.gather(*calls))
