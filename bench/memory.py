"""The peak memory of training steps, against what the plan says before them: a process each.

    .venv/bin/python bench/memory.py [--threads 2] [--case NAME ...] [--json FILE]

Random weights, prompts of equal length, and completions that nearly all run to their limit: the worst step. What is
measured is the resident peak of the process (VmHWM) when the last step ends; saving the model is not training.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from cases import CASES, REWARDS, Case, make
from ppo_memory import SIZES
from turns import arguments, pin, publish, table, turn

__all__ = ["MEASURED"]

SHORT = {"steps": 2}  # the second step has the optimizer's averages beside its activations
SMALL = Case("96x3", 96, 3, 256, 768, 48, 48, prompts=16, group_size=16, **SHORT)
MIDDLE = Case("256x6", 256, 6, 768, 4096, 64, 64, prompts=8, group_size=8, **SHORT)
LARGE = replace(CASES["29m"], prompt_tokens=256, max_tokens=32, prompts=4, group_size=8, **SHORT)
REAL = replace(SIZES["135m"], max_tokens=32, **SHORT)
HALF: dict[str, Any] = {"compute": "bfloat16"}
# The step of recipes/smollm2.toml, with random weights of SmolLM2's shape but for one head and key head less.
STEP = replace(REAL, prompts=8, group_size=8)
# Name -> the shape of the work, and the tables that differ from the defaults.
MEASURED: dict[str, tuple[Case, dict[str, dict[str, Any]]]] = {
    "0.4M": (SMALL, {}),
    "9M": (MIDDLE, {}),
    "9M, bfloat16": (MIDDLE, {"policy": HALF}),
    "9M, KL": (MIDDLE, {"objective": {"preset": "grpo"}}),
    "9M, PPO": (MIDDLE, {"objective": {"preset": "ppo"}}),
    "9M, 1,024 tokens at once": (MIDDLE, {"optimizer": {"tokens_per_micro_batch": 1024}}),
    "29M, prompts of 256": (LARGE, {}),
    "29M, LoRA, bfloat16": (LARGE, {"policy": {**HALF, "lora": {"rank": 8}}}),
    "135M": (REAL, {}),
    "135M, bfloat16": (REAL, {"policy": HALF}),
    "135M, 8 x 8": (STEP, {}),
    "135M, 8 x 8, 1,024 tokens at once": (STEP, {"optimizer": {"tokens_per_micro_batch": 1024}}),
    "135M, 8 x 8, the same, averages in 8 bits": (
        STEP,
        {"optimizer": {"tokens_per_micro_batch": 1024, "state": "8bit"}},
    ),
    "135M, bfloat16 weights": (
        REAL,
        {"policy": {**HALF, "dtype": "bfloat16"}, "optimizer": {"state": "8bit", "stochastic_rounding": True}},
    ),
}


def recipe_of(name: str, directory: Path, threads: int) -> Any:
    """The recipe of a case whose model and prompts are in `directory`."""
    import cohort

    case, tables = MEASURED[name]
    return cohort.Recipe(
        name="memory",
        policy={"model": str(directory / "model"), **tables.get("policy", {})},
        task={
            "source": str(directory / "prompts.jsonl"),
            "template": "none",
            "max_prompt_tokens": case.prompt_tokens,
        },
        rollout={"prompts_per_step": case.prompts, "group_size": case.group_size, "max_tokens": case.max_tokens},
        reward=[REWARDS["varied"]],
        objective=tables.get("objective", {"preset": "dr_grpo"}),
        optimizer={"learning_rate": 1e-6, **tables.get("optimizer", {})},
        evaluate={"problems": 0},
        run={
            "steps": case.steps, "directory": str(directory / "runs"), "threads": threads, "save_every": 0,
            "show_group_every": 0, "gate": "off",
        },
    )  # fmt: skip


def measure(name: str, directory: Path, threads: int) -> dict[str, Any]:
    """Train the steps of a case in this process: its peak in GB, and what the plan reckoned."""
    from cohort.algorithms import objectives
    from cohort.policy.adapters import add_lora
    from cohort.policy.load import load_policy
    from cohort.preflight.memory import memory
    from cohort.train import train

    recipe = recipe_of(name, directory, threads)
    stage = recipe.stages[0]
    run = train(recipe)
    measured = max(line.get("memory/peak_gb", 0.0) for line in run.metrics)
    policy = load_policy(str(directory / "model"), dtype=stage.policy.dtype, compute=stage.policy.compute)
    if stage.policy.lora is not None:
        policy = add_lora(policy, stage.policy.lora, seed=0)
    objective = objectives.preset(stage.objective.preset)
    planned = memory(stage, objective, policy.facts(), MEASURED[name][0].prompt_tokens).gb
    return {"measured": measured, "planned": planned}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--case", choices=MEASURED, action="append", help="all when not given")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "DIRECTORY"), help="measure one case in this process")
    args = parser.parse_args()
    pin(args.threads)
    if args.one:
        print(json.dumps(measure(args.one[0], Path(args.one[1]), args.threads)))
        return
    results = {}
    for name in args.case or MEASURED:
        with tempfile.TemporaryDirectory() as place:
            make(MEASURED[name][0], Path(place))
            results[name] = turn(sys.executable, "memory.py", "--one", name, place, "--threads", args.threads)
        print(name, results[name], flush=True)
    ratios = {f"{name}, planned to measured": one["planned"] / one["measured"] for name, one in results.items()}
    rows = [
        [name, f"{one['planned']:.2f}", f"{one['measured']:.2f}", f"{ratio - 1:+.0%}"]
        for (name, one), ratio in zip(results.items(), ratios.values(), strict=True)
    ]
    text = table(["case", "planned GB", "measured GB", "planned is off by"], rows)
    publish(args, "Memory: the plan and the peak", text, results, ratios=ratios)


if __name__ == "__main__":
    main()
