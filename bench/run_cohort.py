"""A few GRPO steps with Cohort on a prepared case; prints one JSON line. A worker of the other benchmarks.

python bench/run_cohort.py CASE_AS_JSON DIRECTORY STEPS THREADS
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import cohort  # isort: skip - before torch: it says how threads wait for each other
import torch
from cases import REWARDS, Case
from learning import square_rate, step_flops
from transformers import AutoConfig, Qwen3ForCausalLM  # noqa: F401 - the latter so that `base_gb` has all libraries in it
from turns import peak_gb, resident_gb, versions

from cohort.train import train
from cohort.views.console import Console, StepView

__all__ = ["StepClock"]


class StepClock(Console):
    """Prints nothing and notes when training began and when each step had ended, its record written."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.at: list[float] = []

    @contextlib.contextmanager
    def steps(self, kind: str, total: int, done: int) -> Iterator[StepView]:
        with super().steps(kind, total, done) as view:
            self.at.append(time.perf_counter())
            yield _Noting(view, self.at)


class _Noting(StepView):
    """A view that shows nothing but the time."""

    def __init__(self, view: StepView, at: list[float]) -> None:
        self._view, self._at = view, at

    def doing(self, what: str) -> None:
        self._view.doing(what)

    def step(self, step: int, metrics: Mapping[str, Any]) -> None:
        self._at.append(time.perf_counter())
        self._view.step(step, metrics)


def main() -> None:
    case, directory, steps, threads = Case.read(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    base = resident_gb()
    runs = directory / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    recipe = cohort.Recipe(
        name="bench",
        policy={"model": str(directory / "model"), "compute": case.compute},
        task={"source": str(directory / "prompts.jsonl"), "template": "none"},
        rollout={
            "prompts_per_step": case.prompts,
            "group_size": case.group_size,
            "max_tokens": case.max_tokens,
            "max_staleness": case.staleness,
        },
        reward=[REWARDS[case.reward]],
        objective={"preset": "trl", "correction": "off", "kl_coef": case.kl},  # what TRL trains by default
        optimizer={"learning_rate": case.learning_rate},
        evaluate={"problems": 0},
        run={
            "steps": steps,
            "directory": str(runs),
            "threads": threads,
            "workers": case.workers,
            "save_every": 0,
            "show_group_every": 0,
        },
    )
    clock = StepClock()
    run = train(recipe, console=clock)
    lines = [line for line in run.metrics if "time/step_s" in line]
    config = AutoConfig.from_pretrained(directory / "model")
    result = {
        "step_s": [b - a for a, b in pairwise(clock.at)],
        "sample_s": [line["time/sample_s"] for line in lines],
        "score_s": [line["time/score_s"] for line in lines],
        "learn_s": [line["time/learn_s"] for line in lines],
        "tokens": [line["tokens/sampled"] for line in lines],
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else peak_gb(),
        "base_gb": base,  # the libraries alone
        "flops": [step_flops(config, case, line["tokens/sampled"]) for line in lines],
        "gemm_flops_per_s": [square_rate(case.compute) for _ in range(3)],
        "versions": versions(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
