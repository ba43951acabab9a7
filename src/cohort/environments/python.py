"""The Python tool: programs of the policy, run in the sandbox, each in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from cohort.environments.tool import Tool, ToolError, tool_of
from cohort.sandbox import LEVELS, Executor, Level, Limits, RemoteSandbox, Run, Sandbox
from cohort.types import UserError

__all__ = ["python_tool"]


def python_tool(
    time_s: float = 5.0, memory_mb: int = 512, isolation: Level = "filtered", url: str | None = None, processes: int = 0
) -> Tool:
    """The tool `python(code)`, which answers with what the program printed.

    A program has `time_s` of processor time and `memory_mb`. `processes` run at the same time (0: one for each core).
    `isolation` is the least that this machine must reach, `url` a remote sandbox instead. Raises UserError for a
    machine that does not reach it.
    """
    local = [level for level in LEVELS if level != "remote"]
    if isolation not in local:
        raise UserError(f"isolation of the tool python is one of {', '.join(local)}, not {isolation!r}")
    for name, value, least in (("time_s", time_s, 0), ("processes", processes, -1)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least < value < 1e6:
            raise UserError(f"{name} of the tool python is a number above {least}, not {value!r}")
    limits = Limits(memory_mb=memory_mb)

    def executor() -> Executor:
        return Sandbox(limits, isolation) if url is None else RemoteSandbox(url, limits)

    first = executor()
    _ = first.isolation  # a machine that cannot isolate is refused now, not at the first call
    first.close()
    pool = _Pool(executor, int(processes) or os.cpu_count() or 1)

    def python(code: str) -> str:
        """Run a Python program and return what it prints. Nothing is kept between programs.

        Args:
            code: The program. Only what it prints is returned.
        """
        with pool.one() as sandbox:
            return _said(sandbox.run(code, "", time_s))

    tool = tool_of(python)
    return Tool(tool.name, tool.schema, tool.run, close=pool.close)


def _said(run: Run) -> str:
    printed = run.output.decode("utf-8", "replace").rstrip()
    if run.status != "ok":
        why = run.message if run.status == "error" else f"{run.status}, {run.message}"
        raise ToolError(why + (f"\nprinted before:\n{printed}" if printed else ""))
    return printed or "(it printed nothing)"


class _Pool:
    """So many executors, each started when it is first needed."""

    def __init__(self, make: Callable[[], Executor], size: int) -> None:
        self._all = [make() for _ in range(size)]
        self._free: SimpleQueue[Any] = SimpleQueue()
        for executor in self._all:
            self._free.put(executor)

    @contextmanager
    def one(self) -> Iterator[Executor]:
        """An executor for one program; waits until there is one."""
        executor = self._free.get()
        try:
            yield executor
        finally:
            self._free.put(executor)

    def close(self) -> None:
        """Give everything back; it starts afresh when it is needed again."""
        for executor in self._all:
            executor.close()
