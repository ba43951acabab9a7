"""The Python tool: programs of the policy, run in the sandbox, each in a process of its own."""

from __future__ import annotations

import os
from dataclasses import replace
from queue import SimpleQueue

from cohort.environments.tools import Tool, ToolError, tool_of
from cohort.sandbox import LEVELS, Executor, Level, Limits, RemoteSandbox, Run, Sandbox
from cohort.types import UserError


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

    executors: list[Executor] = [
        Sandbox(limits, isolation) if url is None else RemoteSandbox(url, limits)
        for _ in range(int(processes) or os.cpu_count() or 1)
    ]
    _ = executors[0].isolation  # a machine that cannot isolate is refused now, not at the first call
    executors[0].close()  # each starts when it is first needed
    free: SimpleQueue[Executor] = SimpleQueue()
    for executor in executors:
        free.put(executor)

    def python(code: str) -> str:
        """Run a Python program and return what it prints. Nothing is kept between programs.

        Args:
            code: The program. Only what it prints is returned.
        """
        sandbox = free.get()
        try:
            return _said(sandbox.run(code, "", time_s))
        finally:
            free.put(sandbox)

    def close() -> None:
        for executor in executors:
            executor.close()

    return replace(tool_of(python), close=close)


def _said(run: Run) -> str:
    printed = run.output.decode("utf-8", "replace").rstrip()
    if run.status != "ok":
        why = run.message if run.status == "error" else f"{run.status}, {run.message}"
        raise ToolError(why + (f"\nprinted before:\n{printed}" if printed else ""))
    return printed or "(it printed nothing)"
