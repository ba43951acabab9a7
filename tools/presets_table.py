"""Train the quickstart's cold-start policy with every preset for the same number of steps, and print the table.

    .venv/bin/python tools/presets_table.py COLD_START_MODEL [DIRECTORY]

COLD_START_MODEL is the final model of the quickstart's first stage, e.g. runs/quickstart/stages/cold_start/final. Runs
are kept in DIRECTORY (default runs/presets) and are not repeated. About 40 minutes on one core.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cohort
from cohort.algorithms import objectives
from cohort.record.metrics import read_metrics
from cohort.views.console import Console

ROOT = Path(__file__).parent.parent
SEEDS = (0, 1)
STEPS = 60


def run(model: Path, directory: Path, preset: str, seed: int) -> dict:
    """The last metrics of a finished run."""
    quickstart = cohort.Recipe.load(ROOT / "recipes" / "quickstart.toml").stage("grpo")
    rollout = quickstart.rollout.model_dump(include={"prompts_per_step", "group_size", "max_tokens"})
    recipe = cohort.Recipe(
        name=f"{preset}-{seed}",
        seed=seed,
        policy={"model": str(model)},
        task={"source": "word_problems", "levels": list(quickstart.task.levels)},
        rollout=rollout,
        reward="exact_number",
        objective={"preset": preset},
        optimizer={"learning_rate": 3e-4, "warmup_steps": 5, "updates_per_batch": 2},
        critic={"learning_rate": 1e-3},
        evaluate={"problems": 500, "samples": 4},
        run={"steps": STEPS, "directory": str(directory), "threads": 1, "save_every": 0, "show_group_every": 0},
    )
    cohort.train(recipe, resume=True, console=Console(quiet=True))
    return read_metrics(directory / recipe.name / "metrics.jsonl")[-1]


def cell(metrics: dict, key: str) -> str:
    return f"{metrics[key]:.1%} [{metrics[key + '_low']:.1%}, {metrics[key + '_high']:.1%}]"


def main() -> None:
    model = Path(sys.argv[1]).resolve()
    directory = Path(sys.argv[2] if len(sys.argv) > 2 else ROOT / "runs" / "presets").resolve()
    heads = [f"{kind}, seed {seed}" for seed in SEEDS for kind in ("greedy", "sampled")]
    print(f"| preset | {' | '.join(heads)} | tokens |\n|---|{'---|' * (len(heads) + 1)}", flush=True)
    for preset in objectives.PRESETS:
        found = [run(model, directory, preset, seed) for seed in SEEDS]
        cells = [cell(m, key) for m in found for key in ("eval/greedy", "eval/pass@1")]
        length = sum(m["eval/mean_tokens"] for m in found) / len(found)
        print(f"| [`{preset}`]({preset}.md) | {' | '.join(cells)} | {length:.1f} |", flush=True)


if __name__ == "__main__":
    main()
