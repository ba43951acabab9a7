"""`cohort doctor`: what is here, what is fast, and what would not work."""

from __future__ import annotations

import os
import shutil
import tempfile

import psutil
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cohort.machine import describe_machine, fastest_threads
from cohort.rewards import RewardPool, RewardTable, ScoringItem, resolve_all
from cohort.sandbox import LEVELS, Isolation, Sandbox, SandboxError
from cohort.types import InfrastructureError, UserError

__all__ = ["examine"]


def examine() -> None:
    """Print the findings, the thread timings, and one line for each thing that would not work."""
    console = Console(highlight=False)
    facts = describe_machine()
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(os.getcwd())
    table.add_row("processor", f"{facts['processor']}, {facts['cores']} cores, load {os.getloadavg()[0]:.1f}")
    table.add_row("memory", f"{memory.total / 1e9:.1f} GB, {memory.available / 1e9:.1f} GB free")
    table.add_row("disk here", f"{disk.free / 1e9:.1f} GB free")
    kernels = facts["kernels"]
    slower = "" if kernels == "compiled" else "; training works, but slower"
    table.add_row("kernels", escape(kernels) + slower)
    table.add_row("gpu", ", ".join(facts["gpu"]) or "none seen by torch")
    table.add_row("python", f"{facts['python']} on {facts['platform']}")
    table.add_row("packages", ", ".join(f"{n} {v}" for n, v in facts["packages"].items() if v))
    console.print(table)

    best, medians = fastest_threads()
    console.print("\nthreads, median time of a small forward and backward pass")
    for count, seconds in medians.items():
        mark = '  <- fastest, what threads = "auto" takes now' if count == best else ""
        console.print(f"  {count:>3}  {seconds * 1e3:7.2f} ms{mark}")

    console.print()
    sandbox_problems = _sandbox(console)
    console.print()
    problems = [
        *_memory_problem(memory), *_disk_problem(disk), *_worker_problem(), *sandbox_problems, *_gpu_problem(),
    ]  # fmt: skip
    for problem in problems:
        console.print(f"[yellow]would not work[/]  {escape(problem)}")
    if not problems:
        console.print("nothing found that would not work: files, reward workers and torch are fine")


def _memory_problem(memory: object) -> list[str]:
    free = memory.available / 1e9  # type: ignore[attr-defined]
    return [f"only {free:.1f} GB of memory are free; the quickstart needs about 1 GB"] if free < 1.5 else []


def _disk_problem(disk: object) -> list[str]:
    free = disk.free / 1e9  # type: ignore[attr-defined]
    return [f"only {free:.1f} GB of disk are free here; set run.directory to another disk"] if free < 1.0 else []


def _worker_problem() -> list[str]:
    """Score one answer in a worker process, as a run does."""
    try:
        with (
            tempfile.TemporaryDirectory(),
            RewardPool(resolve_all([RewardTable(use="exact_number")]), workers=1) as pool,
        ):
            item = ScoringItem("1 + 1", ("<answer>2</answer>",), answer="2")
            if pool.submit(item).result(timeout=60).rewards != (1.0,):
                return ["a reward worker gave a wrong score"]
    except (InfrastructureError, OSError, TimeoutError) as error:
        return [f"reward workers do not start: {error}"]
    return []


def _sandbox(console: Console) -> list[str]:
    """Print what stands between untrusted code and this machine; a problem where that is not enough by default."""
    try:
        with Sandbox(minimum="process") as sandbox:
            isolation = sandbox.isolation
    except (SandboxError, UserError) as error:
        return [f"code rewards: {error}"]
    console.print(f"sandbox for untrusted code: [bold]{isolation.level}[/] - {LEVELS[isolation.level]}")
    console.print(f"  [dim]holds[/]    {', '.join(isolation.reached) or 'nothing'}")
    for feature, reason in isolation.missing.items():
        console.print(f"  [dim]missing[/]  {feature}: {escape(reason)}")
    return _sandbox_problem(isolation)


def _sandbox_problem(isolation: Isolation) -> list[str]:
    if isolation.level != "process":
        return []
    return [
        "code rewards: there is no Landlock and seccomp to keep untrusted code from your files; they refuse to run "
        'unless the reward says args = { isolation = "process" } or names a remote sandbox with url'
    ]


def _gpu_problem() -> list[str]:
    if torch.version.cuda is not None and not torch.cuda.is_available():
        return ["this torch was built for CUDA but sees no GPU (driver?); it will train on the CPU"]
    return []
