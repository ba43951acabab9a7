"""Score hostile completions by the thousand: how fast, and is anything left behind?

    .venv/bin/python bench/scoring.py [--n 10000] [--workers 2] [--group 8] [--mixes mixed,honest_code]

Every group mixes right, wrong and hostile answers to one question. In `mixed` two groups of three are code (programs,
functions), and the third is for one of the rewards that read text: math, numbers, JSON, regular expressions and others.
Prints throughput and latencies, and what there was before and after of processes, files, mounts, control groups,
descriptors and memory. Exits with 1 if anything is left, or an answer got what it does not deserve.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "rewards"))
sys.path.insert(0, str(Path(__file__).parent))
from scoring_mixes import MIXES, Group, groups, kinds, specs

from cohort.rewards import RewardPool, ScoredGroup, resolve_all
from cohort.sandbox import Sandbox
from cohort.types import InfrastructureError
from leaks import left_behind, nothing_more_than

__all__ = ["Report", "measure"]

GROWTH = {"MB": 32.0, "descriptors": 8.0}  # that a process, or the machine, may have more of after the scoring


@dataclass
class Report:
    """What happened. `problems` is empty when all is well."""

    scorings: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)  # of whole groups
    labels: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    counts: list[dict[str, float]] = field(default_factory=list)  # of what there is, before and after
    holds: list[dict[str, float]] = field(default_factory=list)  # by the workers, after a third and at the end


def measure(mix: str, count: int, workers: int, size: int) -> Report:
    """Score `count` completions of one mix, and look at what is left."""
    report = Report()
    with _own_directory() as directory:
        before = left_behind()
        report.counts.append(census(directory))
        with RewardPool(resolve_all(specs(mix)), workers=workers) as pool:
            source = groups(mix, size)
            warm = {(group.reward, str(group.item.answer)): group for group in islice(source, len(kinds(mix)))}
            # So often that every worker has started and loads, for each kind, what it needs.
            score(pool, [group for group in warm.values() for _ in range(2 * workers)], Report())
            todo = list(islice(source, math.ceil(count / size)))
            third = len(todo) // 3
            began = time.perf_counter()
            score(pool, todo[:third], report)
            at_first = holdings()
            score(pool, todo[third:], report)
            report.seconds = time.perf_counter() - began
            at_last = holdings()
        report.problems += grown(at_first, at_last)
        report.holds = [total(at_first), total(at_last)]
        try:
            nothing_more_than(before)
        except AssertionError as error:
            report.problems.append(str(error))
        report.counts.append(census(directory))
    first, last = report.counts
    report.problems += [
        f"{what}: {first[what]:g} before, {last[what]:g} after" for what in COUNTED if last[what] > first[what]
    ]
    return report


@contextmanager
def _own_directory() -> Iterator[Path]:
    """A directory for the temporary files of this process and its workers, so that any that stays is seen."""
    set_before, tempfile.tempdir = os.environ.get("TMPDIR"), None
    with tempfile.TemporaryDirectory() as directory:
        os.environ["TMPDIR"], tempfile.tempdir = directory, None
        try:
            yield Path(directory)
        finally:
            del os.environ["TMPDIR"]
            if set_before is not None:
                os.environ["TMPDIR"] = set_before
            tempfile.tempdir = None


def score(pool: RewardPool, todo: Sequence[Group], report: Report) -> None:
    """Score the groups and compare with what they deserve."""
    futures = [pool.submit(group.item) for group in todo]
    for group, future in zip(todo, futures, strict=True):
        try:
            scored = future.result()
        except InfrastructureError as error:
            report.problems.append(f"a group was lost: {error}")
            continue
        report.scorings += len(group.wanted)
        report.latencies.append(sum(scored.seconds.values()))
        report.problems += wrong(group, scored, report)


def wrong(group: Group, scored: ScoredGroup, report: Report) -> Iterable[str]:
    """What a group got that it does not deserve."""
    labels = scored.labels.get(group.reward, (None,) * len(group.wanted))
    for text, (wanted, allowed), got, label in zip(
        group.item.completions, group.wanted, scored.rewards, labels, strict=True
    ):
        report.labels[f"{group.reward} {label or ('paid' if got else 'unpaid')}"] += 1
        if got != wanted or (allowed and label not in allowed):
            yield f"{group.reward}: {text[:60]!r} got {got} ({label}), not {wanted} ({', '.join(allowed)})"


COUNTED = ("processes", "temporary files", "mounts", "control groups", "shared memory files", "descriptors")


def census(directory: Path) -> dict[str, float]:
    """What there is: all processes beneath this one, and what they could leave. `directory` is for temporary files."""
    me, found = psutil.Process(), left_behind()
    return {
        "processes": len(me.children(recursive=True)),
        "temporary files": len(list(directory.rglob("*"))) + len(found["directories"]),
        "mounts": len(found["mounts"]),
        "control groups": len(found["control groups"]),
        "shared memory files": len(found["shared memory"]),
        "descriptors": len(found["descriptors"]),
        "MB of this process": me.memory_info().rss / 1e6,
        "MB shared on the machine": getattr(psutil.virtual_memory(), "shared", 0) / 1e6,
    }


def holdings() -> dict[str, dict[str, float]]:
    """What this process and each beneath it hold, and the machine's shared memory."""
    me = psutil.Process()
    found = {"the machine": {"MB": getattr(psutil.virtual_memory(), "shared", 0) / 1e6}}
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            found[f"process {process.pid}"] = {
                "MB": process.memory_info().rss / 1e6, "descriptors": process.num_fds()
            }  # fmt: skip
    return found


def total(held: dict[str, dict[str, float]]) -> dict[str, float]:
    """All processes together."""
    each = [one for name, one in held.items() if name.startswith("process")]
    return {"processes": len(each)} | {what: sum(one[what] for one in each) for what in GROWTH}


def grown(before: dict[str, dict[str, float]], after: dict[str, dict[str, float]]) -> list[str]:
    """What holds more than it may, of what was there before."""
    return [
        f"{name} has grown from {before[name][what]:.0f} to {size:.0f} {what}"
        for name, held in after.items()
        if name in before
        for what, size in held.items()
        if size > before[name][what] + GROWTH[what]
    ]


def show(mix: str, report: Report) -> None:
    """One mix's lines."""
    ordered, pace = sorted(report.latencies), report.scorings / report.seconds
    most, late = ordered[-1], ordered[int(len(ordered) * 0.95)]
    print(f"{mix}: {report.scorings} scorings in {report.seconds:.1f} s, {pace:.0f} a second")
    print(f"  a group takes {statistics.median(ordered):.3f} s (median), {late:.3f} s (95%), {most:.3f} s (most)")
    print("  " + ", ".join(f"{label} {count}" for label, count in sorted(report.labels.items())))
    print(f"  {'':<26}{'before':>10}{'after':>10}")
    for (what, before), after in zip(report.counts[0].items(), report.counts[1].values(), strict=True):
        print(f"  {what:<26}{before:>10.0f}{after:>10.0f}")
    print(f"  {'while it scored':<26}{'a third':>10}{'all':>10}")
    for (what, before), after in zip(report.holds[0].items(), report.holds[1].values(), strict=True):
        print(f"  {what:<26}{before:>10.0f}{after:>10.0f}")
    for problem in report.problems[:20]:
        print(f"  PROBLEM  {problem}")
    print(
        f"  {len(report.problems)} problems" if report.problems else "  nothing left behind, nothing paid wrongly",
        flush=True,
    )


def starts(count: int = 200) -> None:
    """What it costs to start a confined process from the launcher, and what an interpreter alone would: in turns, so
    that other work on the machine hits both alike.
    """
    bare = [os.path.realpath(sys.executable), "-I", "-S", "-c", "0"]
    with Sandbox(minimum="process") as sandbox:
        sandbox.run("", "", 5.0)
        turns = [
            (seconds(lambda: sandbox.run("", "", 5.0)), seconds(lambda: subprocess.run(bare, check=True)))
            for _ in range(count)
        ]
    confined, interpreter = (1e3 * statistics.median(times) for times in zip(*turns, strict=True))
    print(f"an empty program takes {confined:.1f} ms in the sandbox; python -I -S alone takes {interpreter:.1f} ms")


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=10_000, help="scorings of each mix")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--group", type=int, default=8, help="completions of one prompt")
    parser.add_argument("--mixes", default="mixed,honest_code", help=f"of {', '.join(MIXES)}")
    given = parser.parse_args()
    unknown = set(given.mixes.split(",")) - set(MIXES)
    if unknown:
        parser.error(f"there is no mix {', '.join(unknown)}; there is {', '.join(MIXES)}")
    starts()
    reports = {}
    for mix in given.mixes.split(","):
        reports[mix] = measure(mix, given.n, given.workers, given.group)
        show(mix, reports[mix])
    sys.exit(any(report.problems for report in reports.values()))


if __name__ == "__main__":
    main()
