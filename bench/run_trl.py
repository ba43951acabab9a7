"""A few GRPO steps with TRL on a prepared case; prints one JSON line. Runs in TRL's own environment.

python bench/run_trl.py CASE_AS_JSON DIRECTORY STEPS THREADS
"""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from cases import Case, for_lists
from datasets import load_dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from turns import peak_gb, versions

__all__ = ["StepClock", "TimedTrainer", "configure"]


class StepClock(TrainerCallback):
    """Notes when training began and when each step had ended (`at`), and how long each step took by itself, what lies
    between two steps (logging, checkpoints) left out (`alone_s`).
    """

    def __init__(self) -> None:
        self.at: list[float] = []
        self.alone_s: list[float] = []
        self._began = 0.0

    def on_train_begin(self, *args: object, **kwargs: object) -> None:
        self.at.append(time.perf_counter())

    def on_step_begin(self, *args: object, **kwargs: object) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        self.at.append(time.perf_counter())
        self.alone_s.append(self.at[-1] - self._began)


class TimedTrainer(GRPOTrainer):
    """Notes how long every sampling and every scoring took. The rest of a step is learning."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sample_s: list[float] = []
        self.score_s: list[float] = []

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        generated = super()._generate_single_turn(*args, **kwargs)
        self.sample_s.append(time.perf_counter() - began)
        return generated

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        rewards = super()._calculate_rewards(*args, **kwargs)
        self.score_s.append(time.perf_counter() - began)
        return rewards


def configure(directory: Path, rows: int, **others: Any) -> GRPOConfig:
    """The configuration of `rows` completions a step, all in one batch. Where memory is not short, recomputing
    activations would only cost TRL time, so it is off.
    """
    settings: dict[str, Any] = {
        "output_dir": str(directory / "trl"),
        "per_device_train_batch_size": rows,
        "shuffle_dataset": False,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "model_init_kwargs": {"dtype": "float32"},
    }
    return GRPOConfig(**{**settings, **others})


def main() -> None:
    case, directory, steps, threads = Case.read(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    clock = StepClock()
    trainer = TimedTrainer(
        model=str(directory / "model"),
        reward_funcs=for_lists(case.reward),
        args=configure(
            directory,
            case.rows,
            num_generations=case.group_size,
            max_completion_length=case.max_tokens,
            learning_rate=case.learning_rate,
            beta=case.kl,
            bf16=case.compute == "bfloat16",
            max_steps=steps,
        ),
        train_dataset=load_dataset("json", data_files=str(directory / "prompts.jsonl"), split="train"),
        callbacks=[clock],
    )
    trainer.train()
    lengths = [log[key] for log in trainer.state.log_history if (key := "completions/mean_length") in log]
    step_s = [b - a for a, b in pairwise(clock.at)]
    result = {
        "step_s": step_s,
        "sample_s": trainer.sample_s,
        "score_s": trainer.score_s,
        "learn_s": [
            step - sample - score for step, sample, score in zip(step_s, trainer.sample_s, trainer.score_s, strict=True)
        ],
        "tokens": [length * case.rows for length in lengths],
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else peak_gb(),
        "versions": versions(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
