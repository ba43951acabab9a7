"""Run the quickstart on three seeds, and once with a random reward; print the table and draw the figure.

    .venv/bin/python tools/quickstart_figure.py [DIRECTORY]

Runs are kept in DIRECTORY (default runs/healthy, where `make test-detectors` keeps the same ones) and are not repeated.
About 15 minutes on two cores.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from cohort.record.metrics import read_metrics
from cohort.settings import Run
from cohort.train.choosing import choose

ROOT = Path(__file__).parent.parent
SEEDS = (0, 1, 2)


def run(directory: Path, name: str, *overrides: str) -> tuple[list[dict], float]:
    """The metrics of a finished run and the seconds that it took (0 if it was there already)."""
    began = time.perf_counter()
    command = [Path(sys.executable).parent / "cohort", "train", ROOT / "recipes" / "quickstart.toml", "--resume"]
    settings = [f"name={name}", f"run.directory={directory}", *overrides]
    if not (directory / name / "final").exists():
        subprocess.run([*command, *settings], check=True, stdout=sys.stderr)
    return read_metrics(directory / name / "metrics.jsonl"), time.perf_counter() - began


def accuracy(metrics: dict, key: str) -> str:
    return f"{metrics[key]:.1%} [{metrics[key + '_low']:.1%}, {metrics[key + '_high']:.1%}]"


def main() -> None:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "runs" / "healthy").resolve()
    arms = {f"seed {seed}": (f"quickstart-{seed}", f"seed={seed}") for seed in SEEDS}
    arms["random reward, seed 0"] = ("quickstart-random", "seed=0", "grpo.reward=random")
    curves = {}
    print("| run | before, greedy | last step, greedy | sampled | pass@8 | kept | greedy, the half that confirms |")
    print("|---" * 7 + "|")
    for label, (name, *overrides) in arms.items():
        lines, _ = run(directory, name, *overrides)
        curves[label] = [line for line in lines if "eval/greedy" in line]
        before, after = curves[label][0], curves[label][-1]
        chosen = choose(lines, Run(keep_best="eval/greedy"), 0)
        assert chosen is not None
        cells = (accuracy(before, "eval/greedy"), accuracy(after, "eval/greedy"), accuracy(after, "eval/pass@1"))
        confirmed = f"{chosen.confirmed:.1%} [{chosen.low:.1%}, {chosen.high:.1%}]"
        row = (label, *cells, f"{after['eval/pass@8']:.1%}", f"step {chosen.step}", confirmed)
        print(f"| {' | '.join(row)} |", flush=True)

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    for axis, key, title in zip(
        axes, ("eval/greedy", "eval/pass@1"), ("greedy", "sampled, temperature 1"), strict=True
    ):
        for label, lines in curves.items():
            steps, color = [line["step"] for line in lines], "0.45" if "random" in label else None
            (drawn,) = axis.plot(steps, [line[key] for line in lines], label=label, color=color, marker=".")
            low, high = ([line[key + end] for line in lines] for end in ("_low", "_high"))
            axis.fill_between(steps, low, high, alpha=0.15, color=drawn.get_color(), linewidth=0)
        axis.set(title=title, xlabel="GRPO step", ylim=(0, 1))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("held-out accuracy, 500 problems")
    axes[0].legend(loc="center right", fontsize=8)
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "figures" / "quickstart.png", dpi=130)


if __name__ == "__main__":
    main()
