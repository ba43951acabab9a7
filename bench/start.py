"""How much processor time passes, and how much memory is taken, until the first step of a run with many prompts.

.venv/bin/python bench/start.py [--prompts 1000000]

A process for each: a thousand prompts, many with a file of held-out ones, and many of which a share is held out. What
the libraries take to be imported is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RECIPE = """
name = "start"
policy.scratch = { hidden_size = 32, layers = 1, heads = 2, kv_heads = 1, head_dim = 16, intermediate_size = 64 }
rollout = { prompts_per_step = 2, group_size = 2, max_tokens = 4 }
reward = "exact_number"
evaluate.problems = 8
run = { steps = 1, threads = 1, gate = "off" }
"""
CASES = (("thousand.jsonl", '"held.jsonl"'), ("many.jsonl", '"held.jsonl"'), ("many.jsonl", "0.001"))


def write(path: Path, count: int, sign: str) -> None:
    """Sums, or differences."""
    with path.open("w", encoding="utf-8") as file:
        for n in range(count):
            answer = n + n % 97 if sign == "+" else n - n % 97
            file.write(json.dumps({"prompt": f"What is {n} {sign} {n % 97}?", "answer": str(answer)}) + "\n")


def start(source: str, held_out: str) -> None:
    """Begin a run in this process, and say what it took until the first step."""
    import torch  # noqa: F401
    import transformers.models.qwen3  # noqa: F401

    from cohort.recipe import Recipe
    from cohort.train import train
    from cohort.train.grpo.training import GrpoTraining
    from cohort.views.console import Console

    name = f"{Path(source).stem}-{'share' if held_out[0] == '0' else 'file'}"
    began = time.process_time()

    def step(*_: Any) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"{source}, held_out = {held_out}: {time.process_time() - began:.1f} s, {peak:.0f} MB", flush=True)
        os._exit(0)

    GrpoTraining.step = step  # type: ignore[method-assign,assignment]
    changes = [f"name={name}", f"task.source={source}", f"task.held_out={held_out}"]
    train(Recipe.load("recipe.toml", changes), console=Console(quiet=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1_000_000)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        return start(*given.one)
    with tempfile.TemporaryDirectory() as place:
        where = Path(place)
        (where / "recipe.toml").write_text(RECIPE, "utf-8")
        for name, count, sign in (("thousand", 1000, "+"), ("many", given.prompts, "+"), ("held", 500, "-")):
            write(where / f"{name}.jsonl", count, sign)
        for case in CASES:
            command = [sys.executable, str(Path(__file__).resolve()), "--one", *case]
            subprocess.run(command, cwd=where, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return None


if __name__ == "__main__":
    main()
