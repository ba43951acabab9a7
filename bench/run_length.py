"""The TRL side of bench/length.py, in TRL's own environment: one line of `DIRECTORY/steps.jsonl` a step.

    python bench/run_length.py RECIPE DIRECTORY STEPS THREADS

Read from RECIPE, a TOML file: batch, limits, reward and rate. Read from DIRECTORY: `model`; and `prompts.jsonl`, the
prompts in the order in which Cohort took them. A run that was interrupted goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from run_trl import StepClock, TimedTrainer, configure
from transformers.trainer_utils import get_last_checkpoint

SAVE_EVERY = 10


class StepLog(StepClock):
    """Writes what each step took and gave. `file` keeps the steps up to the checkpoint that the run goes on from."""

    def __init__(self, file: Path, done: int) -> None:
        super().__init__()
        kept = file.read_text("utf-8").splitlines(keepends=True)[:done] if file.exists() else []
        file.write_text("".join(kept), "utf-8")
        self._file = file

    def on_log(self, args: object, state: Any, control: object, logs: dict[str, float], **kwargs: object) -> None:
        if "reward" not in logs:
            return  # the summary behind the last step
        line = {"step": state.global_step, "seconds": self.alone_s[-1], "reward": logs["reward"]}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "tokens": logs["completions/mean_length"]}) + "\n")


def main() -> None:
    recipe, directory = tomllib.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[2])
    steps, threads = int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    rollout, length = recipe["rollout"], recipe["reward"][0]["args"]

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        differences = [abs(length["target"] - len(ids)) for ids in completion_ids]
        return [max(length["lowest"], -length["alpha"] * difference) for difference in differences]

    output = directory / "trl"
    checkpoint = get_last_checkpoint(str(output)) if output.is_dir() else None
    done = int(checkpoint.rpartition("-")[2]) if checkpoint else 0
    trainer = TimedTrainer(
        model=str(directory / "model"),
        reward_funcs=reward,
        args=configure(
            directory,
            rollout["prompts_per_step"] * rollout["group_size"],
            num_generations=rollout["group_size"],
            max_completion_length=rollout["max_tokens"],
            learning_rate=recipe["optimizer"]["learning_rate"],
            seed=recipe["seed"],
            max_steps=steps,
            save_strategy="steps",
            save_steps=SAVE_EVERY,
            save_total_limit=1,
        ),
        train_dataset=load_dataset("json", data_files=str(directory / "prompts.jsonl"), split="train"),
        callbacks=[StepLog(directory / "steps.jsonl", done)],
    )
    _refuse_other_prompts(trainer)
    trainer.train(resume_from_checkpoint=checkpoint)


def _refuse_other_prompts(trainer: TimedTrainer) -> None:
    """Both sides must show the model the same tokens."""
    for row in trainer.train_dataset:
        shown = trainer.processing_class.apply_chat_template(
            row["prompt"], add_generation_prompt=True, return_dict=False
        )
        if shown != row["tokens"]:
            sys.exit(f"TRL shows the model {shown}, Cohort {row['tokens']}")


if __name__ == "__main__":
    main()
