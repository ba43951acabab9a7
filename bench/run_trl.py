"""A few GRPO steps with TRL on a prepared case; prints one JSON line. Runs in TRL's own environment."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch
from cases import CASES, reward
from datasets import load_dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Clock(TrainerCallback):
    """Notes the wall-clock time of every step."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_train_begin(self, *args: object, **kwargs: object) -> None:
        self.at.append(time.perf_counter())

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        self.at.append(time.perf_counter())


def main() -> None:
    case, directory, steps, threads = CASES[sys.argv[1]], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    rows = case.prompts * case.group_size
    config = GRPOConfig(
        output_dir=str(directory / "trl"),
        per_device_train_batch_size=rows,
        num_generations=case.group_size,
        max_completion_length=case.max_tokens,
        learning_rate=case.learning_rate,
        lr_scheduler_type="constant",
        beta=case.kl,
        max_steps=steps,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        model_init_kwargs={"dtype": "float32"},
    )
    clock = Clock()
    trainer = GRPOTrainer(
        model=str(directory / "model"),
        reward_funcs=lambda completions, **_: [reward(completion) for completion in completions],
        args=config,
        train_dataset=load_dataset("json", data_files=str(directory / "prompts.jsonl"), split="train"),
        callbacks=[clock],
    )
    trainer.train()
    lengths = [
        log["completions/mean_length"] * rows for log in trainer.state.log_history if "completions/mean_length" in log
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    step_s = [b - a for a, b in zip(clock.at, clock.at[1:], strict=False)]
    print(json.dumps({"step_s": step_s, "tokens": lengths, "peak_gb": peak}))


if __name__ == "__main__":
    main()
