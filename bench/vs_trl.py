"""Cohort against TRL on the same work, in turns: A B A B.

    .venv/bin/python bench/vs_trl.py --trl .venv-trl/bin/python [--case small] [--rounds 3] [--steps 6] [--threads 2]

Machines are noisy: what counts is the ratio, from steps that were timed side by side in one call. A case that differs
from another in one thing (`Case.beside`) takes turns with that one too. The first step of every process is a warm-up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from cases import CASES, Case, make
from turns import arguments, median, pin, publish, share, table, take_turns, turn

Turns = dict[str, list[dict[str, Any]]]  # framework -> its turns
SLEEP_S = 0.5  # of the slow reward, a completion


def families(chosen: Sequence[str]) -> list[list[Case]]:
    """The cases that take turns with each other: a case and those beside it, which bring it along."""
    found: dict[str, list[Case]] = {}
    for name in chosen:
        case = CASES[name]
        members = found.setdefault(case.beside or name, [CASES[case.beside or name]])
        if case not in members:
            members.append(case)
    return list(found.values())


def measure(cases: Sequence[Case], given: argparse.Namespace) -> dict[str, Turns]:
    """Case name -> the turns of both frameworks on it."""
    with tempfile.TemporaryDirectory() as where:
        sides: dict[tuple[str, str], Callable[[], dict[str, Any]]] = {}
        for case in cases:
            directory = Path(where, case.name)
            directory.mkdir()
            make(case, directory)
            words = (case.json(), directory, given.steps or case.steps, given.threads)
            spinning = given.threads if case.busy else 0
            sides[case.name, "cohort"] = partial(among, spinning, sys.executable, "run_cohort.py", *words)
            sides[case.name, "trl"] = partial(among, spinning, given.trl, "run_trl.py", *words)
        results = take_turns(sides, given.rounds)
    return {case.name: {side: results[case.name, side] for side in ("cohort", "trl")} for case in cases}


def among(spinning: int, *words: Any) -> dict[str, Any]:
    """A turn while so many other processes, bound to the same cores, compute all the time."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(spinning)]
    try:
        return turn(*words, warm_up=1)
    finally:
        for other in others:
            other.kill()
            other.wait()


def per_token(turns: list[dict[str, Any]]) -> float:
    """Seconds a sampled token: two frameworks sample different completions, so a step may hold more on one side."""
    return median(turns, "step_s") / median(turns, "tokens")


def parts(turns: list[dict[str, Any]]) -> str:
    """Sampling / scoring / learning, as shares of a step."""
    whole = median(turns, "step_s")
    return " / ".join(share(median(turns, key), whole) for key in ("sample_s", "score_s", "learn_s"))


def of_limit(turns: list[dict[str, Any]]) -> float:
    """The products that a step cannot do without over its time, as a share of the rate of a square beside it."""
    return median(turns, "flops") / median(turns, "step_s") / median(turns, "gemm_flops_per_s")


def ratios(name: str, turns: Turns) -> dict[str, float]:
    """What is compared with another run: how much faster a token is, and Cohort's share of TRL's memory."""
    ours, theirs = turns["cohort"], turns["trl"]
    memory, other_memory = (max(t["peak_gb"] for t in side) for side in (ours, theirs))
    return {
        f"{name}, faster per token": per_token(theirs) / per_token(ours),
        f"{name}, memory": memory / other_memory,
        f"{name}, share of the limit": of_limit(ours),
    }


def row(name: str, turns: Turns) -> list[str]:
    """A case's line of the first table."""
    ours, theirs = turns["cohort"], turns["trl"]
    faster, of_memory, limit = ratios(name, turns).values()
    memory, other_memory = (max(t["peak_gb"] for t in side) for side in (ours, theirs))
    return [
        name,
        f"{median(theirs, 'step_s'):.2f} s",
        f"{median(ours, 'step_s'):.3f} s",
        f"{median(theirs, 'tokens'):,.0f}",
        f"{median(ours, 'tokens'):,.0f}",
        f"**{faster:.1f}x**",
        f"{other_memory:.2f} GB",
        f"{memory:.2f} GB",
        f"{of_memory:.0%}",
        f"{limit:.0%}",
        parts(theirs),
        parts(ours),
    ]


def comparison(case: Case, measured: dict[str, Turns]) -> list[str]:
    """What the one difference costs each framework, a sampled token, and what it could cost at most."""
    costs = {}
    for side in ("trl", "cohort"):
        plain, changed = per_token(measured[case.beside][side]), per_token(measured[case.name][side])
        added = (changed - plain) * median(measured[case.name][side], "tokens")
        costs[side] = f"{changed / plain:.0%} ({added:+.2f} s)"
    waits = f"{case.rows * SLEEP_S:.0f} s of waiting a step"
    what = {
        "half_dead": "every other group without signal",
        "slow": f"{waits}, in a plain function; Cohort: {case.workers} reward processes, TRL: in series",
        "waiting": f"{waits}, in an async function; Cohort: {case.workers} reward processes, TRL: all at once",
    }
    stale = f"; Cohort's rollouts up to {case.staleness} update old" if case.staleness else ""
    differs = "another busy process a core" if case.busy else what[case.reward] + stale
    return [case.name, case.beside, differs, costs["trl"], costs["cohort"]]


def main() -> None:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--trl", required=True, help="the Python of an environment with TRL")
    parser.add_argument("--case", choices=CASES, action="append", help="all when not given")
    parser.add_argument("--steps", type=int, default=0, help="of one turn; the case's own when not given")
    given = parser.parse_args()
    pin(given.threads)
    measured: dict[str, Turns] = {}
    chosen = families(given.case or list(CASES))
    for cases in chosen:
        measured |= measure(cases, given)
        print(f"measured: {', '.join(case.name for case in cases)}", file=sys.stderr, flush=True)

    memory = ("TRL peak", "Cohort peak", "memory", "Cohort's share of the limit")
    heads = ("case", "TRL step", "Cohort step", "TRL tokens", "Cohort tokens", "faster per token", *memory)
    spent = ("TRL sampling / scoring / learning", "Cohort sampling / scoring / learning")
    text = table((*heads, *spent), [row(name, turns) for name, turns in measured.items()])
    beside = [case for cases in chosen for case in cases if case.beside]
    if beside:
        compared = ("case", "beside", "what differs", "TRL's cost a token", "Cohort's cost a token")
        text += "\n\n" + table(compared, [comparison(case, measured) for case in beside])
    data = {name: {"case": asdict(CASES[name]), **turns} for name, turns in measured.items()}
    theirs = next(iter(measured.values()))["trl"][0]["versions"]
    compared_with = {key: value for name, turns in measured.items() for key, value in ratios(name, turns).items()}
    publish(given, "A GRPO step, against TRL", text, data, packages=theirs, ratios=compared_with)


if __name__ == "__main__":
    main()
