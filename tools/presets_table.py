"""Train the quickstart's cold-start policy with every preset for the same number of steps, and print the table.

    .venv/bin/python tools/presets_table.py COLD_START_MODEL [DIRECTORY [PRESET ...]]

COLD_START_MODEL is the final model of the quickstart's first stage, e.g. runs/quickstart/stages/cold_start/final. Runs
are kept in DIRECTORY (default runs/presets); stopped, the same command goes on. Without names all presets, which takes
under an hour on one quiet core.

Each is compared with `plain`, which most presets change in one thing: GRPO without a KL, all tokens counted alike. The
difference is paired over the held-out problems and both seeds; "same weights as" are of files that are equal byte for
byte, so that what a preset adds did not act even once.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
from pathlib import Path
from typing import Any

import cohort
from cohort.algorithms import objectives
from cohort.evaluate.accuracy import Accuracy
from cohort.evaluate.compare import paired
from cohort.record.metrics import read_metrics
from cohort.record.rollouts import read_groups
from cohort.views.console import Console

ROOT = Path(__file__).parent.parent
SEEDS = (0, 1)
STEPS = 25
PLAIN = {"preset": "grpo", "kl_coef": 0.0, "aggregation": "token_mean"}
TOOLS = {"environment": {"tools": ["calculator"], "format": "tags"}}
NEEDS: dict[str, dict[str, Any]] = {"echo": TOOLS, "gigpo": TOOLS}
LEFT_OUT = ("chord",)  # it asks for demonstrations in a column, and these problems have none


def run(model: Path, directory: Path, arm: str, seed: int) -> Path:
    """The directory of a finished run."""
    quickstart = cohort.Recipe.load(ROOT / "recipes" / "quickstart.toml").stage("grpo")
    recipe = cohort.Recipe(
        name=f"{arm}-{seed}",
        seed=seed,
        policy={"model": str(model)},
        task={"source": "word_problems", "levels": list(quickstart.task.levels or ())},
        rollout=quickstart.rollout.model_dump(include={"prompts_per_step", "group_size", "max_tokens"}),
        reward="exact_number",
        objective=PLAIN if arm == "plain" else {"preset": arm},
        optimizer={"learning_rate": 3e-4, "warmup_steps": 5, "updates_per_batch": 2},
        critic={"learning_rate": 1e-3},
        evaluate={"problems": 300, "samples": 4},
        run={"steps": STEPS, "directory": str(directory), "threads": 1, "save_every": 0, "show_group_every": 0},
        **NEEDS.get(arm, {}),
    )
    found = directory / recipe.name
    if not (found / "final").exists():
        cohort.train(recipe, resume=True, console=Console(quiet=True))
    return found


def per_problem(runs: list[Path]) -> dict[str, float]:
    """The share of right samples of every problem after training, by seed and problem."""
    found: dict[str, float] = {}
    for seed, directory in zip(SEEDS, runs, strict=True):
        groups = tuple(read_groups(sorted((directory / "log").glob("eval-*-sampled.parquet"))[-1]))
        found |= {f"{seed}/{problem}": v for problem, v in Accuracy("sampled", 4, groups).per_problem.items()}
    return found


def weights(runs: list[Path]) -> tuple[str, ...]:
    """What identifies the weights that were learnt."""
    return tuple(hashlib.sha256((one / "final" / "model.safetensors").read_bytes()).hexdigest() for one in runs)


def cell(metrics: dict[str, float]) -> str:
    """Sampled accuracy with its interval, and the greedy one."""
    key = "eval/pass@1"
    return (
        f"{metrics[key]:.1%} [{metrics[key + '_low']:.1%}, {metrics[key + '_high']:.1%}], {metrics['eval/greedy']:.1%}"
    )


def main() -> None:
    """Train what is not trained yet, and print a row each."""
    model = Path(sys.argv[1]).resolve()
    directory = Path(sys.argv[2] if len(sys.argv) > 2 else ROOT / "runs" / "presets").resolve()
    heads = [*(f"sampled, greedy; seed {seed}" for seed in SEEDS), "points to `plain`", "sampled", "same weights as"]
    print(f"| preset | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    arms = ("plain", *(sys.argv[3:] or [name for name in objectives.PRESETS if name not in LEFT_OUT]))
    trained = {seed: {arm: run(model, directory, arm, seed) for arm in arms} for seed in SEEDS}
    plain, seen = per_problem([trained[seed]["plain"] for seed in SEEDS]), dict[tuple[str, ...], str]()
    for arm in arms:
        runs = [trained[seed][arm] for seed in SEEDS]
        lines = [read_metrics(one / "metrics.jsonl") for one in runs]
        own = per_problem(runs)
        apart = paired(own, plain, clusters={key: key.partition("/")[2] for key in own})
        points = "" if arm == "plain" else f"{100 * apart.mean:+.1f} [{100 * apart.low:+.1f}, {100 * apart.high:+.1f}]"
        drawn = statistics.fmean(sum(line.get("tokens/sampled", 0) for line in of) for of in lines)
        same = seen.setdefault(weights(runs), arm)
        name = "`plain`" if arm == "plain" else f"[`{arm}`]({arm}.md)"
        cells = [*(cell(of[-1]) for of in lines), points, f"{drawn / 1e3:.0f}k", "" if same == arm else f"`{same}`"]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
