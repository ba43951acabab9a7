"""Time to a result: how long the quickstart policy trains until its held-out accuracy is 80%, with Cohort and with TRL.

    .venv/bin/python bench/time_to_result.py --trl .venv-trl/bin/python [--seeds 3] [--steps 30] [--every 2]

Stage 1 of recipes/quickstart.toml makes one cold start. From it both train stage 2 with TRL's default objective, the
same batch, and prompts in the same order. The learning rate is a constant 1e-5: at the recipe's own, 3e-4, the target
is reached in two or three steps, too few to time. Only the steps count: neither the loading of models nor
the checkpoints, which one evaluator (Cohort's, greedy, the recipe's held-out problems) measures afterwards for both.
The first checkpoint at the target ends the clock.
"""

from __future__ import annotations

import json
import sys
import tempfile
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

from run_quickstart import recipe_tables
from turns import arguments, pin, publish, table, take_turns, turn

import cohort
from cohort.views.console import Console

RECIPE = Path(__file__).parent.parent / "recipes" / "quickstart.toml"
STAGE = ("task", "rollout", "reward", "evaluate")  # what is taken over from the recipe's stage 2


def prepare(directory: Path, threads: int, start: Path | None, learning_rate: float) -> None:
    """Write `tables.json`, and the cold start as `model`: made here, or the one given."""
    whole = tomllib.loads(RECIPE.read_text("utf-8"))
    cold, grpo = whole.pop("stage")
    stage = {key: (whole | grpo)[key] for key in STAGE}
    stage["optimizer"] = {"learning_rate": learning_rate}
    (directory / "tables.json").write_text(json.dumps(stage), "utf-8")
    if start is None:
        run = {**cold["run"], "directory": str(directory), "threads": threads}
        tables = {**whole, "name": "cold-start", "stage": [{**cold, "run": run}]}
        start = cohort.train(cohort.Recipe.from_tables(tables), console=Console(quiet=True)).final
    (directory / "model").symlink_to(start.resolve(), target_is_directory=True)


def accuracy(directory: Path, checkpoint: str, threads: int) -> float:
    """Held-out accuracy of a checkpoint, greedy: a run of no steps from it."""
    name = f"evaluation-{len(list((directory / 'runs').glob('evaluation-*')))}"
    tables = recipe_tables(directory, name, checkpoint, 0, threads)
    tables["run"]["steps"] = 0
    metrics = cohort.train(cohort.Recipe.from_tables(tables), console=Console(quiet=True)).metrics
    return float(metrics[0]["eval/greedy"])


def until(directory: Path, trained: dict[str, Any], target: float, threads: int) -> dict[str, Any]:
    """The accuracies of a run's checkpoints up to the first at the target; `step` and `seconds` are that one's (None:
    there is none).
    """
    accuracies: dict[int, float] = {}
    for step, checkpoint in trained["checkpoints"].items():
        accuracies[int(step)] = accuracy(directory, checkpoint, threads)
        if accuracies[int(step)] >= target:
            return {"accuracies": accuracies, "step": int(step), "seconds": sum(trained["step_s"][: int(step)])}
    return {"accuracies": accuracies, "step": None, "seconds": None}


def row(seed: int, ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """A seed's line of the table."""

    def shown(side: dict[str, Any]) -> str:
        if side["seconds"] is None:
            return f"not reached in {max(side['accuracies'])} steps"
        return f"{side['seconds']:.1f} s ({side['step']} steps, {side['accuracies'][side['step']]:.1%})"

    both = ours["seconds"] is not None and theirs["seconds"] is not None
    ratio = f"**{theirs['seconds'] / ours['seconds']:.1f}x**" if both else "-"
    return [str(seed), shown(theirs), shown(ours), ratio]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--trl", required=True, help="the Python of an environment with TRL and cloudpickle")
    parser.add_argument("--start", type=Path, metavar="DIR", help="a cold start made before; made anew when not given")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30, help="the most that either may take")
    parser.add_argument("--every", type=int, default=2, help="steps between checkpoints")
    parser.add_argument("--learning-rate", type=float, default=1e-5, help="of both")
    parser.add_argument("--target", type=float, default=0.8, help="held-out accuracy")
    given = parser.parse_args()
    pin(given.threads)
    with tempfile.TemporaryDirectory() as where:
        directory = Path(where)
        prepare(directory, given.threads, given.start, given.learning_rate)
        before = accuracy(directory, str(directory / "model"), given.threads)
        rows, data, packages = [], {}, {}
        for seed in range(given.seeds):
            words = (directory, seed, given.steps, given.every, given.threads)
            sides = {
                "cohort": partial(turn, sys.executable, "run_quickstart.py", "cohort", *words),
                "trl": partial(turn, given.trl, "run_quickstart.py", "trl", *words),
            }
            trained = {side: turns[0] for side, turns in take_turns(sides, rounds=1).items()}
            packages = trained["trl"]["versions"]
            found = {side: until(directory, run, given.target, given.threads) for side, run in trained.items()}
            rows.append(row(seed, found["cohort"], found["trl"]))
            data[seed] = {side: {**trained[side], **found[side]} for side in found}
            print(f"measured: seed {seed}", file=sys.stderr, flush=True)
    text = table(("seed", "TRL", "Cohort", "sooner"), rows)
    text += f"\n\nHeld-out accuracy of the cold start, greedy: {before:.1%}."
    title = f"Training time until {given.target:.0%} held-out accuracy"
    publish(given, title, text, {"cold_start": before, "seeds": data}, packages=packages)


if __name__ == "__main__":
    main()
