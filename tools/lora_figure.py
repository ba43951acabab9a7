"""LoRA against full training at equal compute, on the model and the task of the quickstart: runs, table, figure.

    .venv/bin/python tools/lora_figure.py [DIRECTORY]

All arms start from one base, which `recipes/lora.toml` makes in its first stage, and differ in what is trained and at
which rate. Runs are kept in DIRECTORY (default runs/lora-figure), resumed where they were stopped, not repeated. Arms
can be made one by one: `tools/lora_figure.py DIRECTORY ARM`.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from cohort import Recipe, train
from cohort.record.metrics import read_metrics

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "recipes" / "lora.toml"
STEPS, EVERY, PROBLEMS = 80, 10, 300
FULL = 3e-4  # the quickstart's rate
ARMS: dict[str, dict[str, Any]] = {
    "all weights, 3e-4": {"optimizer": {"learning_rate": FULL}},
    "rank 4, ten times that": {"policy": {"lora": {"rank": 4}}, "optimizer": {"learning_rate": 10 * FULL}},
    "rank 4, the same rate": {"policy": {"lora": {"rank": 4}}, "optimizer": {"learning_rate": FULL}},
    "rank 1, ten times that": {"policy": {"lora": {"rank": 1}}, "optimizer": {"learning_rate": 10 * FULL}},
}


def base(directory: Path) -> Path:
    """The model that all arms start from: the first stage of the recipe, trained once."""
    made = directory / "base" / "final"
    if not made.exists():
        tables = tomllib.loads(RECIPE.read_text("utf-8"))
        own = {key: value for key, value in tables["stage"][0].items() if key != "name"}
        own["run"] |= {"directory": str(directory), "threads": 1}
        train(Recipe(name="base", task=tables["task"] | own.pop("task"), **own), resume=True)
    return made


def run(directory: Path, label: str) -> list[dict[str, Any]]:
    """The metrics of one arm."""
    tables = tomllib.loads(RECIPE.read_text("utf-8"))
    own = {key: value for key, value in tables["stage"][1].items() if key not in ("name", "policy")}
    own["optimizer"] |= ARMS[label]["optimizer"]
    own["evaluate"] |= {"problems": PROBLEMS, "samples": 1}
    own["run"] |= {"steps": STEPS, "evaluate_every": EVERY, "save_every": EVERY, "threads": 1}
    own["run"] |= {"directory": str(directory)}
    policy = {"model": str(base(directory)), **ARMS[label].get("policy", {})}
    name = label.replace(" ", "-").replace(",", "")
    train(Recipe(name=name, task=tables["task"], policy=policy, **own), resume=True)
    return read_metrics(directory / name / "metrics.jsonl")


def compute(lines: list[dict[str, Any]], lora: bool, parameters: float) -> list[float]:
    """10^12 operations up to each line: 2 a parameter and sampled token; 6 a trained one, 4 where the gradients of the
    weights themselves are not needed.
    """
    total, found = 0.0, []
    for line in lines:
        passes = 2 * line.get("tokens/sampled", 0) + (4 if lora else 6) * line.get("tokens/trained", 0)
        total += passes * parameters / 1e12
        found.append(total)
    return found


def main() -> None:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "runs" / "lora-figure").resolve()
    if len(sys.argv) > 2:
        run(directory, sys.argv[2])
        return
    for label in ARMS:
        subprocess.run([sys.executable, __file__, str(directory), label], check=True)
    figure, axis = plt.subplots(figsize=(6.4, 3.6))
    print("| arm | before | after | sampled before | sampled after | 10^12 operations |\n|---|---|---|---|---|---|")
    for label, settings in ARMS.items():
        lines = run(directory, label)
        spent = compute(lines, "policy" in settings, parameters=0.4e6)
        at = [i for i, line in enumerate(lines) if "eval/greedy" in line]
        xs, ys = [spent[i] for i in at], [lines[i]["eval/greedy"] for i in at]
        (drawn,) = axis.plot(xs, ys, marker=".", label=label)
        low, high = ([lines[i]["eval/greedy" + end] for i in at] for end in ("_low", "_high"))
        axis.fill_between(xs, low, high, alpha=0.12, color=drawn.get_color(), linewidth=0)
        cells = [f"{lines[i][key]:.1%}" for key in ("eval/greedy", "eval/pass@1") for i in (at[0], at[-1])]
        print(f"| {label} | {' | '.join(cells)} | {spent[-1]:.2f} |")
    axis.set(xlabel="10^12 operations of GRPO", ylabel=f"greedy, {PROBLEMS} held-out problems", ylim=(0, 1))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "figures" / "lora.png", dpi=130)


if __name__ == "__main__":
    main()
