"""The GRPO stage of the quickstart with one framework, from a given checkpoint, saving one every few steps; prints one
JSON line. A worker of bench/time_to_result.py, in that framework's environment.

    python bench/run_quickstart.py cohort|trl DIRECTORY SEED STEPS EVERY THREADS

Read from DIRECTORY: `model`, the cold start; `tables.json`, the stage as tables of a recipe; for TRL, `prompts.jsonl`,
the prompts in the order in which Cohort took them. Both train TRL's default objective at a constant learning rate.
"""

from __future__ import annotations

import json
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

__all__ = ["recipe_tables"]

SOURCE = Path(__file__).parent.parent / "src"


def recipe_tables(directory: Path, name: str, model: str, seed: int, threads: int) -> dict[str, Any]:
    """The tables of a recipe of the one stage, starting from `model`. Evaluates and trains nothing yet."""
    tables: dict[str, Any] = json.loads((directory / "tables.json").read_text("utf-8"))
    tables |= {
        "name": name,
        "seed": seed,
        "policy": {"model": model},
        "objective": {"preset": "trl", "correction": "off"},
        "evaluate": {**tables["evaluate"], "samples": 0},
        "run": {"directory": str(directory / "runs"), "threads": threads, "show_group_every": 0},
    }
    return tables


def train_cohort(directory: Path, seed: int, steps: int, every: int, threads: int) -> dict[str, Any]:
    """The seconds of every step, and the checkpoints by step. Writes `prompts.jsonl`.

    Checkpoints are the benchmark's wish, so they do not count: one run is timed and saves none, a second, the same bit
    for bit, saves them.
    """
    from run_cohort import StepClock

    import cohort
    from cohort.record.rollouts import read_groups

    def run(name: str, save_every: int, clock: StepClock) -> Any:
        tables = recipe_tables(directory, name, str(directory / "model"), seed, threads)
        tables["evaluate"] = {"problems": 0}
        tables["run"] |= {"steps": steps, "save_every": save_every, "keep_checkpoints": steps}
        return cohort.train(cohort.Recipe.from_tables(tables), console=clock)

    clock = StepClock()
    timed, saving = run(f"timed-{seed}", 0, clock), run(f"seed-{seed}", every, StepClock())
    if [line.get("loss") for line in timed.metrics] != [line.get("loss") for line in saving.metrics]:
        sys.exit("two runs of one recipe differ, so the checkpoints of one say nothing about the time of the other")
    with (directory / "prompts.jsonl").open("w", encoding="utf-8") as file:
        for step in range(1, steps + 1):
            for group in read_groups(timed.directory / "log" / f"step-{step:06d}.parquet"):
                messages = [{"role": "user", "content": group.prompt.question}]
                file.write(json.dumps({"prompt": messages, "answer": str(group.prompt.answer)}) + "\n")
    saved = {
        step: str(saving.directory / "checkpoints" / f"step-{step:06d}") for step in range(every, steps + 1, every)
    }
    return {"step_s": [b - a for a, b in pairwise(clock.at)], "checkpoints": saved}


def train_trl(directory: Path, seed: int, steps: int, every: int, threads: int) -> dict[str, Any]:
    """As `train_cohort`, with TRL, on the prompts in `prompts.jsonl`."""
    import torch
    from datasets import load_dataset
    from run_trl import StepClock, TimedTrainer, configure

    sys.path.insert(0, str(SOURCE))  # for the verifier, which needs nothing but cloudpickle
    from cohort.rewards.verifiers.number import exact_number

    torch.set_num_threads(threads)
    tables = json.loads((directory / "tables.json").read_text("utf-8"))
    rollout, optimizer = tables["rollout"], tables["optimizer"]
    output = directory / "trl"
    shutil.rmtree(output, ignore_errors=True)

    def reward(completions: Any, answer: list[str], **_: Any) -> list[float]:
        return [exact_number(chat[0]["content"], gold) for chat, gold in zip(completions, answer, strict=True)]

    clock = StepClock()
    trainer = TimedTrainer(
        model=str(directory / "model"),
        reward_funcs=reward,
        args=configure(
            directory,
            rollout["prompts_per_step"] * rollout["group_size"],
            num_generations=rollout["group_size"],
            max_completion_length=rollout["max_tokens"],
            learning_rate=optimizer["learning_rate"],
            seed=seed,
            max_steps=steps,
            save_strategy="steps",
            save_steps=every,
        ),
        train_dataset=load_dataset("json", data_files=str(directory / "prompts.jsonl"), split="train"),
        callbacks=[clock],
    )
    trainer.train()
    saved = {step: str(output / f"checkpoint-{step}") for step in range(every, steps + 1, every)}
    return {"step_s": clock.alone_s, "checkpoints": saved}


def main() -> None:
    side, directory = sys.argv[1], Path(sys.argv[2])
    train = {"cohort": train_cohort, "trl": train_trl}[side]
    seed, steps, every, threads = map(int, sys.argv[3:7])
    result = train(directory, seed, steps, every, threads)
    from turns import versions

    print(json.dumps({**result, "versions": versions()}))


if __name__ == "__main__":
    main()
