"""Score hostile completions by the thousand: how fast, and is anything left behind?

    .venv/bin/python bench/scoring.py [--n 10000] [--workers 2] [--group 8] [--rewards code,honest_code,math,...]

Every group mixes right, wrong and hostile answers of one kind; `honest_code` is code without the hostile ones. Prints
throughput and latencies, and checks that every answer got what it deserves and that no process, file, mount, descriptor
or memory is left. Exits with 1 if not.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from cohort.rewards import RewardPool, RewardSpec, ScoredGroup, ScoringItem, resolve_all
from cohort.sandbox import Sandbox
from cohort.types import InfrastructureError
from hostile_code import FUNCTION_TESTS, FUNCTIONS, PROGRAM_TESTS, PROGRAMS, fenced
from leaks import left_behind, nothing_more_than

__all__ = ["Report", "measure"]

CODE_ARGS = {"time_s": 0.15, "total_s": 0.3, "memory_mb": 256}
GROWTH_MB = 32.0  # that a process, or the machine's shared memory, may grow while the scoring goes on
TEXTS = (  # for the rewards that look at a final answer; only the first is right
    "The answer is \\boxed{42}.",
    "<answer>43</answer>",
    "\\boxed{9^{9^{9}}}",
    "\\boxed{" + "(" * 5_000 + "1" + ")" * 5_000 + "}",
    "\\boxed{\\sum_{n=1}^{10^{12}} n}",
    "\\boxed{" * 2_000,
    "9" * 100_000,
    "<answer>" * 10_000,
    "\\boxed{x = 42 = 43}",
    "####" * 20_000,
    "\ud800\x00\u202e42",
    "",
)


@dataclass
class Report:
    """What happened. `problems` is empty when all is well."""

    scorings: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)  # of whole groups
    labels: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Group:
    """Completions for one prompt, and for each of them the reward and the labels that it may get (none: any)."""

    item: ScoringItem
    wanted: tuple[tuple[float, tuple[str, ...]], ...]


def groups(mix: str, size: int) -> Iterator[Group]:
    """Groups without end: a walk through the answers of one mix."""
    if mix in ("code", "honest_code"):
        honest = (("right",), ("wrong",)) if mix == "honest_code" else None
        kinds = [
            (json.dumps(tests), [(fenced(a.code), float("right" in a.verdicts), a.verdicts) for a in some])
            for tests, attempts in ((PROGRAM_TESTS, PROGRAMS), (FUNCTION_TESTS, FUNCTIONS))
            if (some := [a for a in attempts if honest is None or a.verdicts in honest])
        ]
    else:
        kinds = [("42", [(text, float(index == 0), ()) for index, text in enumerate(TEXTS)])]
    at = [0] * len(kinds)
    while True:
        for kind, (answer, attempts) in enumerate(kinds):
            chosen = [attempts[(at[kind] + step) % len(attempts)] for step in range(size)]
            at[kind] += size
            item = ScoringItem("What is 20 + 22?", tuple(text for text, _, _ in chosen), answer=answer)
            yield Group(item, tuple((score, verdicts) for _, score, verdicts in chosen))


def measure(mix: str, count: int, workers: int, size: int) -> Report:
    """Score `count` completions of one mix, and look at what is left."""
    report = Report()
    before = left_behind()
    reward = mix.removeprefix("honest_")
    spec = RewardSpec(reward, args=CODE_ARGS if reward == "code" else {})
    with RewardPool(resolve_all([spec]), workers=workers) as pool:
        source = groups(mix, size)
        half = max(count // size // 2, 1)
        warm = [next(source) for _ in range(min(2 * workers, half))]
        score(pool, warm, reward, Report())  # workers have started, and every kind of code has run
        memory = memory_mb()
        began = time.perf_counter()
        done = [next(source) for _ in range(math.ceil(count / size))]
        score(pool, done, reward, report)
        report.seconds = time.perf_counter() - began
        report.problems += grown(memory, memory_mb())
    try:
        nothing_more_than(before)
    except AssertionError as error:
        report.problems.append(str(error))
    return report


def score(pool: RewardPool, todo: Sequence[Group], reward: str, report: Report) -> None:
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
        report.problems += wrong(group, scored, reward, report)


def wrong(group: Group, scored: ScoredGroup, reward: str, report: Report) -> Iterable[str]:
    """What a group got that it does not deserve."""
    labels = scored.labels.get(reward, ("",) * len(group.wanted))
    for text, (wanted, allowed), got, label in zip(
        group.item.completions, group.wanted, scored.rewards, labels, strict=True
    ):
        report.labels[str(label)] += 1
        if got != wanted or (allowed and label not in allowed):
            yield f"{text[:60]!r} got {got} ({label}), not {wanted} ({', '.join(allowed)})"


def memory_mb() -> dict[str, float]:
    """Resident memory of this process and all beneath it, and the machine's shared memory."""
    me = psutil.Process()
    found = {"shared memory": getattr(psutil.virtual_memory(), "shared", 0) / 1e6}
    for process in (me, *me.children(recursive=True)):
        try:
            found[f"process {process.pid}"] = process.memory_info().rss / 1e6
        except psutil.NoSuchProcess:
            continue
    return found


def grown(before: dict[str, float], after: dict[str, float]) -> list[str]:
    """What has grown by more than it may, of what was there before."""
    return [
        f"{name} has grown from {before[name]:.0f} to {size:.0f} MB"
        for name, size in after.items()
        if name in before and size > before[name] + GROWTH_MB
    ]


def show(mix: str, report: Report) -> None:
    """One mix's lines."""
    ordered, pace = sorted(report.latencies), report.scorings / report.seconds
    most, late = ordered[-1], ordered[int(len(ordered) * 0.95)]
    print(f"{mix}: {report.scorings} scorings in {report.seconds:.1f} s, {pace:.0f} a second")
    print(f"  a group takes {statistics.median(ordered):.3f} s (median), {late:.3f} s (95%), {most:.3f} s (most)")
    print("  " + ", ".join(f"{label or 'no label'} {count}" for label, count in report.labels.most_common()))
    for problem in report.problems[:20]:
        print(f"  PROBLEM  {problem}")
    print(f"  {len(report.problems)} problems" if report.problems else "  nothing left behind, nothing paid wrongly")


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
    parser.add_argument("--n", type=int, default=10_000, help="scorings of each reward")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--group", type=int, default=8, help="completions of one prompt")
    parser.add_argument("--rewards", default="code,honest_code,math,exact_number")
    given = parser.parse_args()
    starts()
    reports = {}
    for reward in given.rewards.split(","):
        reports[reward] = measure(reward, given.n, given.workers, given.group)
        show(reward, reports[reward])
    sys.exit(any(report.problems for report in reports.values()))


if __name__ == "__main__":
    main()
