"""Cohort against TRL on the same work, in turns: A B A B. Prints a table of medians and ratios.

    .venv/bin/python bench/vs_trl.py --trl .venv-trl/bin/python [--case small] [--rounds 3] [--steps 6] [--threads 2]

`make bench` makes the two environments and runs all cases. Machines are noisy: what counts is the ratio, from steps
that were timed side by side in one call. The first step of every process is a warm-up and does not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from cases import CASES, make

HERE = Path(__file__).parent


def turn(python: str, script: str, case: str, directory: Path, steps: int, threads: int) -> dict:
    """One process of `steps` steps; its first step is dropped from the lists."""
    command = [python, str(HERE / script), case, str(directory), str(steps), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{script} failed on {case}:\n{done.stderr[-3000:]}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    return {key: value[1:] if isinstance(value, list) else value for key, value in result.items()}


def measure(case: str, trl: str, rounds: int, steps: int, threads: int) -> dict[str, list[dict]]:
    """The turns of both frameworks."""
    turns: dict[str, list[dict]] = {"cohort": [], "trl": []}
    with tempfile.TemporaryDirectory() as where:
        directory = Path(where)
        make(CASES[case], directory, prompts=CASES[case].prompts * (steps + 1))
        for _ in range(rounds):
            turns["cohort"].append(turn(sys.executable, "run_cohort.py", case, directory, steps, threads))
            turns["trl"].append(turn(trl, "run_trl.py", case, directory, steps, threads))
    return turns


def median(turns: list[dict], key: str) -> float:
    return statistics.median(x for t in turns for x in t[key])


def row(case: str, turns: dict[str, list[dict]]) -> str:
    ours, theirs = turns["cohort"], turns["trl"]
    step, other = median(ours, "step_s"), median(theirs, "step_s")
    tokens, other_tokens = median(ours, "tokens"), median(theirs, "tokens")
    # The two sample different completions, so a step may hold more tokens on one side: compare seconds a token.
    ratio = (other / other_tokens) / (step / tokens)
    memory, other_memory = (max(t["peak_gb"] for t in side) for side in (ours, theirs))
    share = median(ours, "sample_s") / step
    return (
        f"| {case} | {other:.2f} s | {step:.3f} s | {other_tokens:,.0f} | {tokens:,.0f} | **{ratio:.1f}x** | "
        f"{other_memory:.2f} GB | {memory:.2f} GB | {share:.0%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trl", required=True, help="the Python of an environment with TRL")
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    heads = ("case", "TRL step", "Cohort step", "TRL tokens", "Cohort tokens", "faster per token", "TRL peak")
    print(f"| {' | '.join((*heads, 'Cohort peak', 'sampling'))} |\n{'|---' * 9}|", flush=True)
    for case in given.case or CASES:
        print(row(case, measure(case, given.trl, given.rounds, given.steps, given.threads)), flush=True)


if __name__ == "__main__":
    main()
