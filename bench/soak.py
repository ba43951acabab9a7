"""Train for long: with a fault every few seconds, and with many prompts. Is the result the same? Does nothing grow?

    .venv/bin/python bench/soak.py faults [--steps 2000] [--seed 0]
    .venv/bin/python bench/soak.py prompts [--prompts 50000] [--steps 500]

`faults` trains a tiny policy to answer with the letter that follows the prompt's: first without faults, then with
faults drawn from the seed and bound to operations on the disk, so that they come at the same places again. `prompts`
shows each of many prompts once. Exits with 1 where something is not as it should be; what that is stands in the table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

from tests.faults.injury import ENDING, PASSING, Fault, Training, left_of, same_runs  # noqa: E402

from cohort.record.metrics import read_metrics  # noqa: E402
from cohort.record.rollouts import read_groups  # noqa: E402
from cohort.record.verify import verify  # noqa: E402
from cohort.sandbox import Sandbox  # noqa: E402
from leaks import left_behind, nothing_more_than  # noqa: E402

RECIPE = """
name = "r"
seed = {seed}
[task]
source = "prompts.jsonl"
template = "none"
[run]
directory = "runs"
threads = 1
gate = "off"
[[stage]]
kind = "sft"
name = "start"
task.source = "start.jsonl"
policy.scratch = {{ hidden_size = 32, layers = 1, heads = 2, kv_heads = 1, head_dim = 16, intermediate_size = 64 }}
supervised.examples_per_step = 32
optimizer.learning_rate = 3e-3
evaluate.problems = 0
run.steps = {start}
[[stage]]
kind = "grpo"
task.held_out = "held_out.jsonl"
rollout = {{ prompts_per_step = {prompts}, group_size = 8, max_tokens = 4, max_staleness = 1 }}
reward = [{{ use = "rewards:{reward}", name = "follows", style = "trl", timeout_s = 600.0 }}]
optimizer.learning_rate = 1e-3
evaluate = {{ problems = 200, samples = 1 }}
run = {{ steps = {steps}, evaluate_every = {evaluate_every}, save_every = {save_every}, show_group_every = 0 }}
"""
REWARD = """
import os, time
from pathlib import Path
from cohort.sandbox import Limits, Sandbox

SANDBOX = Sandbox(Limits(memory_mb=256), minimum="process")


def plain(completions, answer, **_):
    return [float(one.strip() == answer[0]) for one in completions]


def sandboxed(completions, answer, **_):
    try:
        os.remove("hang")
    except FileNotFoundError:
        said = SANDBOX.run(f"for one in {completions!r}: print(int(one.strip() == {answer[0]!r}))", "", 10)
        return [float(line) for line in said.output.split()]
    time.sleep(1000)
"""
LETTERS = "abcdefgh"
CALM = 40  # operations on the disk before the first fault of a process


@dataclass
class Watch:
    """What a training process took while it ran, once a second: step, MB, descriptors, threads, processes beneath."""

    run: Path
    seen: list[tuple[float, ...]] = field(default_factory=list)

    @contextlib.contextmanager
    def over(self, pid: int) -> Iterator[None]:
        """Look until the body has ended."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(1.0):
                with contextlib.suppress(psutil.Error, OSError, ValueError, IndexError):  # before the first step
                    one = psutil.Process(pid)
                    files, threads, beneath = one.num_fds(), one.num_threads(), len(one.children(recursive=True))
                    self.seen.append((self._step(), one.memory_info().rss / 1e6, files, threads, beneath))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _step(self) -> float:
        with (self.run / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 20_000))
            return json.loads(file.read().splitlines()[-1])["step"]


@dataclass
class Report:
    """Rows of a table; `holds` is false once something is not as it should be."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    holds: bool = True

    def add(self, what: str, seen: str, holds: bool = True) -> None:
        """One row, said at once."""
        self.rows.append((what, seen if holds else f"**{seen}**"))
        self.holds &= holds
        print(f"{what}: {seen}" + ("" if holds else "   <-- NOT AS IT SHOULD BE"), flush=True)

    def flat(self, what: str, steps: Any, values: Any, most: float) -> None:
        """The first fifth of the steps against the last, and the slope; it may grow by the share `most`."""
        if len(values) < 10:
            return self.add(what, "too few steps to say")
        steps, values = np.asarray(steps, float), np.asarray(values, float)
        low, high = np.quantile(steps, [0.2, 0.8])
        first, last = np.median(values[steps <= low]), np.median(values[steps >= high])
        slope = 1000 * np.polyfit(steps, values, 1)[0] if len(steps) > 1 else 0.0
        said = f"{first:.4g} in the first fifth, {last:.4g} in the last ({slope:+.3g} in 1,000 steps)"
        self.add(what, said, bool(last <= (1 + most) * first))
        return None


def prepare(where: Path, **settings: Any) -> Path:
    """A directory with the recipe, the reward and its data: a prompt of its own for every group."""
    draw = random.Random(settings["seed"])
    (where / "tmp").mkdir(parents=True)

    def write(name: str, count: int, answer: Callable[[str], str]) -> None:
        letters = (draw.choice(LETTERS) for _ in range(count))
        rows = (
            {"prompt": f"{name} {n} {a}", "answer": answer(a), "completion": answer(a)} for n, a in enumerate(letters)
        )
        (where / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    def after(letter: str) -> str:
        return LETTERS[(LETTERS.index(letter) + 1) % len(LETTERS)]

    write("prompts", settings["prompts"] * settings["steps"], after)
    write("held_out", 200, after)
    write("start", 2000, lambda letter: draw.choice(LETTERS))  # to answer with a letter, and no more
    (where / "recipe.toml").write_text(RECIPE.format(**settings), "utf-8")
    (where / "rewards.py").write_text(REWARD, "utf-8")
    return where


def trained(where: Path, watch: Watch, fault: Fault | None = None) -> Training:
    """A process that has ended, with all that it had started."""
    one = Training(where, fault)
    one.start()
    assert one.pid
    with watch.over(one.pid):
        one.join()
    assert not left_of(one.pid), "processes that it started are still there"
    return one


def a_fault(draw: random.Random, between: int) -> tuple[Fault, list[str]]:
    """Some faults that a process lives through, and one that ends it, at most so many operations between them."""
    at, also = CALM, []
    for deed in [*draw.choices(list(PASSING), k=draw.randint(0, 2)), draw.choice(list(ENDING))]:
        at += draw.randint(1, between)
        also.append((at, deed))
    return Fault(also=tuple(also)), [deed for _, deed in also]


def damage(run: Path, draw: random.Random) -> bool:
    """Flip a bit of the newest checkpoint, where there is one before it."""
    saved = sorted(run.glob("checkpoints/step-*"))
    if len(saved) < 2:
        return False
    file = draw.choice(sorted(file for file in saved[-1].rglob("*") if file.is_file()))
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)
    return True


def soak(where: Path, steps: int, seed: int, report: Report, start: int = 60, between: int = 400) -> None:
    """The run without faults, and the one with them."""
    before, draw = beside_us(), random.Random(seed)
    settings = {"steps": steps, "seed": seed, "prompts": 4, "reward": "sandboxed", "start": start}
    settings |= {"save_every": min(20, steps // 8), "evaluate_every": max(1, steps // 4)}
    whole, other = prepare(where / "whole", **settings), prepare(where / "faults", **settings)
    began, watch = time.monotonic(), Watch(whole / "runs/r")
    quiet = trained(whole, watch)
    assert quiet.exitcode == 0, quiet.said()
    report.add("without faults", f"{steps} steps in {time.monotonic() - began:.0f} s")
    grown(report, whole / "runs/r", watch)

    seen: Counter[str] = Counter()
    began, code, lives = time.monotonic(), -1, Watch(other / "runs/r")
    while code != 0:
        fault, deeds = a_fault(draw, between)
        if draw.random() < 0.2 and damage(other / "runs/r", draw):
            seen["a bit of the newest checkpoint flips"] += 1
        one = trained(other, lives, fault)
        code, done = one.exitcode, [deed for at, deed in fault.also if code]
        seen.update(done)
        full = "the disk is full (ENOSPC)" in deeds and code == 1
        assert code in (0, -9) or full, one.said()[-3000:]
    seconds = time.monotonic() - began
    report.add("faults", f"{seen.total()}, one every {seconds / max(1, seen.total()):.1f} s")
    for deed, times in seen.most_common():
        report.add(f"- {deed}", f"{times} times")
    report.add("with faults", f"{steps} steps in {seconds:.0f} s")
    for what, number in (("resident memory, MB", 1), ("descriptors", 2)):
        report.flat(f"{what}, over all processes", [x[0] for x in lives.seen], [x[number] for x in lives.seen], 0.05)
    same(report, whole / "runs/r", other / "runs/r")
    once(report, other / "runs/r", 4 * steps)
    left = [str(path) for each in (whole, other) for path in (each / "tmp").rglob("*")]
    report.add("temporary files left", ", ".join(left) or "none", not left)
    time.sleep(11)  # what is so old, and was left by a sandbox that was killed, the next one takes away
    with Sandbox(minimum="process") as sandbox:
        sandbox.run("", "", 5)
    try:
        nothing_more_than(before, look=beside_us)
        report.add("processes, mounts, control groups left", "none")
    except AssertionError as error:
        report.add("left behind", str(error), False)


def beside_us() -> Mapping[str, frozenset[str]]:
    """What is left on this machine but for what others may leave, and descriptors with which processes are started."""
    return {kind: found for kind, found in left_behind().items() if kind not in ("shared memory", "descriptors")}


def same(report: Report, whole: Path, other: Path) -> None:
    """Compare two runs in every bit."""
    for name, run in (("without faults", whole), ("with faults", other)):
        last = [line for line in read_metrics(run / "metrics.jsonl") if "eval/greedy" in line]
        report.add(
            f"accuracy {name}", f"{last[0]['eval/greedy']:.1%} at first, {last[-1]['eval/greedy']:.1%} at the end"
        )
        report.add(f"the record {name}", "verifies", verify(run).holds)
    try:
        same_runs(whole, other)
        report.add("weights, metrics, rollouts", "the same bits")
    except AssertionError as error:
        report.add("weights, metrics, rollouts", f"differ: {str(error)[:300]}", False)


def once(report: Report, run: Path, count: int) -> None:
    """Each prompt was learnt from once."""
    prompts = Counter(
        group.prompt.id for file in sorted(run.rglob("log/step-*.parquet")) for group in read_groups(file)
    )
    holds = len(prompts) == count and prompts.total() == count
    report.add("prompts", f"{len(prompts):,} of {count:,}, {prompts.total():,} times in all", holds)


def grown(report: Report, run: Path, watch: Watch) -> None:
    """Whether a process and its run grow with the steps."""
    late = [
        x for x in watch.seen if x[0] > 0.1 * lines_of(run)[-1]["step"]
    ]  # after the first steps, which import and compile
    for what, number in (("resident memory, MB", 1), ("descriptors", 2), ("threads", 3), ("processes beneath it", 4)):
        report.flat(what, [x[0] for x in late], [x[number] for x in late], 0.05)
    lines = lines_of(run)
    report.flat("a step, s", [x["step"] for x in lines], [x["time/step_s"] for x in lines], 0.25)
    files = sorted(run.glob("log/step-*.parquet"))
    report.flat("bytes of a step on disk", range(len(files)), [file.stat().st_size for file in files], 0.1)
    bytes_of_run = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
    report.add("the run on disk", f"{bytes_of_run / 1e6:.1f} MB")


def lines_of(run: Path) -> list[dict[str, Any]]:
    """The metrics of the steps of a run."""
    return [line for line in read_metrics(run / "metrics.jsonl") if "time/step_s" in line]


def many_prompts(where: Path, prompts: int, steps: int, seed: int, report: Report) -> None:
    """A run that sees many prompts, each once."""
    settings = {"steps": steps, "seed": seed, "prompts": prompts // steps, "reward": "plain", "start": 60}
    settings |= {"save_every": 50, "evaluate_every": 0}
    run = prepare(where / "many", **settings) / "runs/r"
    began, watch = time.monotonic(), Watch(run)
    one = trained(run.parent.parent, watch)
    assert one.exitcode == 0, one.said()
    report.add("prompts", f"{prompts:,} in {steps} steps, {time.monotonic() - began:.0f} s")
    grown(report, run, watch)
    once(report, run, prompts)
    report.add("the record", "verifies", verify(run).holds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("faults", "prompts"))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--prompts", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--where", type=Path, help="where the runs are made and kept; a temporary directory when not given"
    )
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory() if given.where is None else contextlib.nullcontext(given.where) as place:
        where = Path(place).resolve()
        if given.part == "faults":
            soak(where, given.steps or 2000, given.seed, report)
        else:
            many_prompts(where, given.prompts, given.steps or 500, given.seed, report)
    print("\n| what | seen |", "|---|---|", *(f"| {what} | {seen} |" for what, seen in report.rows), sep="\n")
    if given.json:
        given.json.write_text(json.dumps(dict(report.rows), indent=1), "utf-8")
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
