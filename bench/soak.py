"""Train with a random fault every few seconds, and the same without: is the result the same, and does nothing grow?

    .venv/bin/python bench/soak.py [--steps 2000] [--every 6.0] [--faults 100000] [--where DIR]

Faults: SIGKILL at a moment or before an operation on the disk, no space from an operation on, files that are cut off,
a clock that jumps, a bit of the newest checkpoint flipped. After `--faults` of them the run is left alone. Exits with 1
where the two runs differ in a bit, a record does not verify, a process is left, or memory or step time grow by more
than a half from the second quarter of the steps without faults to the last.
"""

from __future__ import annotations

import argparse
import errno
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.faults.injury import Fault, Training, same_runs
from tests.faults.roads import ROADS, prepare

from cohort.record.metrics import read_metrics

draw = random.Random()


def recipe(where: Path, steps: int) -> Path:
    """The road `grpo`, longer."""
    text = ROADS["grpo"].replace("run.steps = 4\n", f"run.steps = {steps}\n")
    text = text.replace("run.evaluate_every = 2", f"run.evaluate_every = {max(2, steps // 10)}")
    (prepare(where, "grpo") / "recipe.toml").write_text(text.replace("save_every = 2", "save_every = 5"), "utf-8")
    return where


def a_fault(kinds: list[str], every: float) -> tuple[str, Fault]:
    """Some fault, at some moment."""
    after = draw.uniform(0.3, 2 * every)
    return draw.choice(
        [
            ("killed at a moment", Fault(after_s=after)),
            ("killed before an operation", Fault(at=draw.randint(1, 400))),
            ("no space", Fault(kind=draw.choice(kinds), number=errno.ENOSPC, after_s=after)),
            ("files cut off", Fault(largest=draw.randint(2_000, 60_000))),
            ("clock jumps, then killed", Fault(clock=True, after_s=after)),
        ]
    )


def damage(run: Path) -> bool:
    """Flip a bit of the newest checkpoint, where there is one before it."""
    saved = sorted((run / "checkpoints").glob("step-*"))
    if len(saved) < 2:
        return False
    file = draw.choice([file for file in saved[-1].rglob("*") if file.is_file()])
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)
    return True


def soak(where: Path, steps: int, every: float, most: int) -> bool:
    """Both runs; prints what was seen, and returns whether all of it is as it should be."""
    whole, other = recipe(where / "whole", steps), recipe(where / "faults", steps)
    began, first = time.monotonic(), Training(whole)
    if first.run_to_end(None) != 0:
        print(first.said())
        return False
    print(f"without faults: {steps} steps in {time.monotonic() - began:.0f} s")
    kinds = [kind for kind in dict.fromkeys(first.operations) if not kind.startswith(("os.remove", "os.rmdir"))]
    seen: Counter[str] = Counter()
    began, code, last = time.monotonic(), -1, first
    while code != 0:
        name, fault = a_fault(kinds, every) if seen.total() < most else ("", Fault())
        if seen.total() < most and draw.random() < 0.2 and damage(other / "runs/r"):
            seen["a damaged checkpoint"] += 1
        last = Training(other, fault)
        code = last.run_to_end(None)
        seen[name] += code != 0
        if code not in (0, 1, -9) or (code == 1 and not name):
            print(last.said()[-2000:])
            return False
    print(f"with {seen.total()} faults: {time.monotonic() - began:.0f} s, {+seen}")
    same_runs(whole / "runs/r", other / "runs/r")
    print("the same bits; the record verifies; no process was left")
    return flat(whole / "runs/r")


def flat(run: Path) -> bool:
    """Whether memory and step time of a run stay what they are; says them, and the size on disk of a step."""
    lines = [line for line in read_metrics(run / "metrics.jsonl") if line["step"]]
    quarter = len(lines) // 4
    holds = True
    for name in ("time/step_s", "memory/peak_gb"):
        found = [line[name] for line in lines if name in line]
        early, late = (statistics.median(found[a:b]) for a, b in ((quarter, 2 * quarter), (3 * quarter, None)))
        print(f"{name}: {early:.3g} in the second quarter, {late:.3g} in the last")
        holds &= late <= 1.5 * early
    sizes = [file.stat().st_size for file in sorted((run / "log").glob("step-*.parquet"))]
    early, late = statistics.mean(sizes[quarter : 2 * quarter]), statistics.mean(sizes[3 * quarter :])
    print(f"bytes of a step: {early:.0f} in the second quarter, {late:.0f} in the last")
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--every", type=float, default=6.0)
    parser.add_argument("--faults", type=int, default=100_000)
    parser.add_argument("--where", type=Path)
    given = parser.parse_args()
    if given.where is not None:
        given.where.mkdir(parents=True)
        return 0 if soak(given.where.resolve(), given.steps, given.every, given.faults) else 1
    with tempfile.TemporaryDirectory() as place:
        return 0 if soak(Path(place), given.steps, given.every, given.faults) else 1


if __name__ == "__main__":
    sys.exit(main())
