"""The memory and the time of a step of GRPO and of PPO, on random weights: is a quarter saved?

    .venv/bin/python bench/ppo_memory.py [--sizes 0.8m,29m,135m] [--rounds 2] [--threads 2] [--json FILE]

Every method trains some steps in a process of its own, with the same prompts, completions and batch. `trained` is the
most memory of the process less that of the libraries alone; `saved` is what GRPO needs less of it than PPO with the
same KL. The reward is a function and needs no model: with a reward model every method needs one more.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from cases import CASES, REWARDS, Case, make
from run_cohort import StepClock
from turns import arguments, peak_gb, pin, publish, resident_gb, table, turn

__all__ = ["METHODS", "SIZES", "saved"]

SIZES = {
    "0.8m": CASES["small"],
    "29m": CASES["29m"],
    "135m": Case(
        "135m", 576, 30, 1536, 49152, 64, 64, prompts=4, group_size=4, heads=8, head_dim=64, tied=True, steps=3
    ),
}
LORA = {"rank": 8, "alpha": 16}
METHODS: dict[str, dict[str, Any]] = {
    "GRPO without a KL": {"objective": {"preset": "grpo", "kl_coef": 0.0}},
    "GRPO": {"objective": {"preset": "grpo"}},
    "PPO without a KL": {"objective": {"preset": "ppo", "kl_coef": 0.0}},
    "PPO": {"objective": {"preset": "ppo"}},
    "GRPO, LoRA": {"objective": {"preset": "grpo"}, "policy": {"lora": LORA}},
    "PPO, LoRA": {"objective": {"preset": "ppo"}, "policy": {"lora": LORA}},
}


def train_once(case: Case, directory: Path, method: str, threads: int) -> dict[str, Any]:
    """Some steps of a method: the peak, what the libraries took, and the time of each step."""
    import cohort
    from cohort.train import train

    base, runs = resident_gb(), directory / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    own = METHODS[method]
    recipe = cohort.Recipe(
        name="bench",
        policy={"model": str(directory / "model"), "compute": case.compute, **own.get("policy", {})},
        task={"source": str(directory / "prompts.jsonl"), "template": "none"},
        rollout={
            "prompts_per_step": case.prompts,
            "group_size": case.group_size,
            "max_tokens": case.max_tokens,
        },
        reward=[REWARDS[case.reward]],
        objective=own["objective"],
        optimizer={"learning_rate": case.learning_rate},
        evaluate={"problems": 0},
        run={"steps": case.steps, "directory": str(runs), "threads": threads, "save_every": 0, "show_group_every": 0},
    )
    run = train(recipe, console=StepClock())
    lines = [line for line in run.metrics if "time/step_s" in line]
    return {
        "peak_gb": max(line["memory/peak_gb"] for line in lines),  # saving the model is not training
        "base_gb": base,
        "step_s": [line["time/step_s"] for line in lines],
        "whole_gb": peak_gb(),
    }


def saved(less: float, more: float) -> float:
    """The share of `more` that `less` does without."""
    return 1 - less / more


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        case, directory, method, threads = Case.read(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], int(sys.argv[5])
        print(json.dumps(train_once(case, directory, method, threads)))
        return
    parser = arguments(__doc__, rounds=2)
    parser.add_argument("--sizes", default=",".join(SIZES), help="with commas; 135m needs about 6 GB")
    given = parser.parse_args()
    names = given.sizes.split(",")
    if strange := [name for name in names if name not in SIZES]:
        parser.error(f"there is no size {strange[0]!r}; there are {', '.join(SIZES)}")
    pin(given.threads)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in names:
        case = SIZES[name]
        with tempfile.TemporaryDirectory() as place:
            make(case, Path(place))
            every = {
                method: [
                    turn(sys.executable, "ppo_memory.py", "--one", case.json(), place, method, given.threads, warm_up=1)
                    for _ in range(given.rounds)
                ]
                for method in METHODS
            }
        found[name] = {
            method: {
                "peak_gb": max(one["peak_gb"] for one in turns),
                "trained_gb": max(one["peak_gb"] - one["base_gb"] for one in turns),
                "step_s": statistics.median(s for one in turns for s in one["step_s"]),
            }
            for method, turns in every.items()
        }
    rows = []
    for name, of in found.items():
        for method, one in of.items():
            against = of[method.replace("GRPO", "PPO")]
            share = f"{saved(one['trained_gb'], against['trained_gb']):.0%}" if method.startswith("GRPO") else ""
            rows.append(
                [name, method, f"{one['peak_gb']:.2f}", f"{one['trained_gb']:.2f}", share, f"{one['step_s']:.2f}"]
            )
    text = table(["size", "method", "peak GB", "trained GB", "saved", "s a step"], rows)
    publish(given, "GRPO and PPO: memory and time", text, found)


if __name__ == "__main__":
    main()
