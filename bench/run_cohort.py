"""A few GRPO steps with Cohort on a prepared case; prints one JSON line. Used by bench/vs_trl.py."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from cases import CASES, reward

import cohort
from cohort.monitor.console import Console


def main() -> None:
    case, directory, steps, threads = CASES[sys.argv[1]], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    runs = directory / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    recipe = cohort.Recipe(
        name="bench",
        policy={"model": str(directory / "model")},
        task={"source": str(directory / "prompts.jsonl"), "template": "none"},
        rollout={"prompts_per_step": case.prompts, "group_size": case.group_size, "max_tokens": case.max_tokens},
        reward=[reward],
        objective={"preset": "trl", "correction": "off", "kl_coef": case.kl},  # what TRL trains by default
        optimizer={"learning_rate": case.learning_rate},
        evaluate={"problems": 0},
        run={"steps": steps, "directory": str(runs), "threads": threads, "save_every": 0, "show_group_every": 0},
    )
    run = cohort.train(recipe, console=Console(quiet=True))
    lines = [line for line in run.metrics if "time/step_s" in line]
    print(
        json.dumps(
            {
                "step_s": [line["time/step_s"] for line in lines],
                "sample_s": [line["time/sample_s"] for line in lines],
                "learn_s": [line["time/learn_s"] for line in lines],
                "tokens": [line["tokens/sampled"] for line in lines],
                "peak_gb": lines[-1]["memory/peak_gb"],
            }
        )
    )


if __name__ == "__main__":
    main()
