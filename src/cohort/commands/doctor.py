"""`cohort doctor`: what is here, what is fast, and what would not work."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cohort.backends.cluster.examine import Node
from cohort.machine import describe_machine, fastest_threads
from cohort.preflight.memory import available_gb, machine_gb
from cohort.rewards import RewardPool, RewardTable, ScoringItem, resolve_all
from cohort.sandbox import LEVELS, Isolation, Sandbox, SandboxError
from cohort.types import InfrastructureError, UserError
from cohort.views.console import Console, escape


@dataclass(frozen=True, slots=True)
class Examined:
    """`machine` is as in environment.json. `threads` is the fastest number of them, `medians` the seconds that a small
    forward and backward pass takes by their number. `sandbox` is None where it does not start.
    """

    machine: dict[str, Any]
    load: float
    memory_gb: float
    free_memory_gb: float
    free_disk_gb: float
    threads: int
    medians: dict[int, float]
    sandbox: Isolation | None
    would_not_work: tuple[str, ...]


def examine() -> Examined:
    """Look at the machine, time its threads, score with a worker, start a sandbox."""
    free_memory, free_disk = available_gb(), shutil.disk_usage(os.getcwd()).free / 1e9
    threads, medians = fastest_threads()
    sandbox, sandbox_problems = examine_sandbox()
    problems = []
    if free_memory < 1.5:
        problems.append(f"only {free_memory:.1f} GB of memory are free; the quickstart needs about 1 GB")
    if free_disk < 1.0:
        problems.append(f"only {free_disk:.1f} GB of disk are free here; set run.directory to another disk")
    problems += [*_worker_problem(), *sandbox_problems]
    if torch.version.cuda is not None and not torch.cuda.is_available():
        problems.append("this torch was built for CUDA but sees no GPU (driver?); it will train on the CPU")
    return Examined(
        machine=describe_machine(),
        load=os.getloadavg()[0],
        memory_gb=machine_gb(),
        free_memory_gb=free_memory,
        free_disk_gb=free_disk,
        threads=threads,
        medians=medians,
        sandbox=sandbox,
        would_not_work=tuple(problems),
    )


def examine_sandbox() -> tuple[Isolation | None, list[str]]:
    """What stands between untrusted code and this machine; and a problem where that is not enough by default."""
    try:
        with Sandbox(minimum="process") as sandbox:
            isolation = sandbox.isolation
    except (SandboxError, UserError) as error:
        return None, [f"code rewards: {error}"]
    if isolation.level != "process":
        return isolation, []
    return isolation, [
        "code rewards: there is no Landlock and seccomp to keep untrusted code from your files; they refuse to run "
        'unless the reward says args = { isolation = "process" } or names a remote sandbox with url'
    ]


def _worker_problem() -> list[str]:
    """Score one answer in a worker process, as a run does."""
    try:
        with RewardPool(resolve_all([RewardTable(use="exact_number")]), workers=1) as pool:
            item = ScoringItem("1 + 1", ("<answer>2</answer>",), answer="2")
            if pool.submit(item).result(timeout=60).rewards != (1.0,):
                return ["a reward worker gave a wrong score"]
    except (InfrastructureError, OSError, TimeoutError) as error:
        return [f"reward workers do not start: {error}"]
    return []


def show(console: Console, found: Examined) -> None:
    """The findings, the thread timings, and one line for each thing that would not work."""
    facts = found.machine
    slower = "" if facts["kernels"] == "compiled" else "; training works, but slower"
    console.lines(
        {
            "processor": f"{facts['processor']}, {facts['cores']} cores, load {found.load:.1f}",
            "memory": f"{found.memory_gb:.1f} GB, {found.free_memory_gb:.1f} GB free",
            "disk here": f"{found.free_disk_gb:.1f} GB free",
            "kernels": facts["kernels"] + slower,
            "gpu": ", ".join(facts["gpu"]) or "none seen by torch",
            "python": f"{facts['python']} on {facts['platform']}",
            "packages": ", ".join(f"{name} {version}" for name, version in facts["packages"].items() if version),
        },
        indent=0,
    )
    console.say("\nthreads, median time of a small forward and backward pass")
    for count, seconds in found.medians.items():
        mark = '  <- fastest, what threads = "auto" takes now' if count == found.threads else ""
        console.say(f"  {count:>3}  {seconds * 1e3:7.2f} ms{mark}")
    console.say()
    show_sandbox(console, found.sandbox)
    console.say()
    for problem in found.would_not_work:
        console.say(f"[yellow]would not work[/]  {escape(problem)}")
    if not found.would_not_work:
        console.say("nothing found that would not work: files, reward workers and torch are fine")


def show_nodes(console: Console, found: Mapping[str, Sequence[Node]]) -> None:
    """Every node of a cluster, and one line for each thing that would not work there."""
    for node in found["nodes"]:
        speed = "" if node.mb_per_s is None else f", weights come at {node.mb_per_s:,.0f} MB/s"
        clock = "" if node.clock_s is None else f", clock {node.clock_s:+.2f} s"
        console.say(escape(f"{node.name}: {node.cpus:g} cores, {node.gpus:g} GPUs{speed}{clock}"))
        for problem in node.would_not_work:
            console.say(f"  [yellow]would not work[/]  {escape(problem)}")
    if not any(node.would_not_work for node in found["nodes"]):
        console.say("nothing found that would not work: versions, directories, ports and clocks are fine")


def show_sandbox(console: Console, isolation: Isolation | None) -> None:
    """The level of the sandbox and each of its features, where it starts."""
    if isolation is None:
        return
    console.say(f"sandbox for untrusted code: [bold]{isolation.level}[/] - {LEVELS[isolation.level]}")
    console.say(f"  [dim]holds[/]    {', '.join(isolation.reached) or 'nothing'}")
    for feature, reason in isolation.missing.items():
        console.say(f"  [dim]missing[/]  {feature}: {escape(reason)}")
