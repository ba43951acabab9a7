"""Learning alone: one update of the learner on a fixed batch, as a share of what this machine can multiply.

    .venv/bin/python bench/learning.py [--case small] [--dtype float32] [--repeats 8] [--threads 2]

Counted are the multiplications and additions that no implementation can leave out: forward and backward of the linear
layers over every token once (a prompt once a group), and of the head over the predicted tokens. Those of attention are
counted apart; nothing else (norms, softmax, recomputation, AdamW) counts as work, though its time does. The machine's
rate is that of the best of torch's matmul and oneDNN's on a large square, measured between the updates; the rate on the
shapes that this model has is beside it.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cases import CASES, Case, make
from torch import Tensor
from transformers import AutoConfig
from turns import arguments, pin, publish, table

from cohort.algorithms import objectives
from cohort.learn.batch import collate
from cohort.learn.learner import Learner
from cohort.policy.load import load_policy
from cohort.settings import Optimizer
from cohort.types import Batch, Group, Prompt, Rollout

__all__ = [
    "Work",
    "attention_flops",
    "count",
    "gemm_rate",
    "linear_shapes",
    "make_batch",
    "seconds",
    "shapes_rate",
    "square_rate",
    "step_flops",
    "work_flops",
]

DTYPES = ("float32", "bfloat16")
SQUARE = 2048
FORWARD_AND_BACKWARD = 3  # a product forward, two of its size backward


@dataclass(frozen=True, slots=True)
class Work:
    """The tokens of a batch: `tokens` enter the linear layers, `predicted` the head; `pairs` is how many (query, key)
    pairs attention has.
    """

    tokens: int
    predicted: int
    pairs: int


def count(batch: Batch) -> Work:
    """What must be computed for a batch whose rollouts all count. A rollout's last token predicts nothing, so it enters
    no layer; its first is predicted by the prompt.
    """
    prompts = [len(prompt) for prompt in batch.prompts]
    rollouts = [(prompts[g], n - 1) for g, n in zip(batch.group.tolist(), batch.lengths.tolist(), strict=True)]
    return Work(
        tokens=sum(prompts) + sum(n for _, n in rollouts),
        predicted=int(batch.mask.sum()),
        pairs=sum(n * (n + 1) // 2 for n in prompts) + sum(n * p + n * (n + 1) // 2 for p, n in rollouts),
    )


def linear_shapes(config: Any) -> list[tuple[int, int]]:
    """(inputs, outputs) of every linear layer of a Qwen3 but the head."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    attention = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
    feed_forward = [(hidden, inner), (hidden, inner), (inner, hidden)]
    return [*attention, *feed_forward] * config.num_hidden_layers


def work_flops(config: Any, work: Work) -> int:
    """Floating-point operations of the linear layers and the head, forward and backward."""
    body = sum(inputs * outputs for inputs, outputs in linear_shapes(config))
    head = config.hidden_size * config.vocab_size
    return 2 * FORWARD_AND_BACKWARD * (work.tokens * body + work.predicted * head)


def step_flops(config: Any, case: Case, sampled: int) -> int:
    """Those of a whole step without its attention: prompts once, completions once in sampling and once in learning."""
    entered = case.prompts * case.prompt_tokens + sampled - case.rows  # the last token of a row enters no layer
    once = Work(tokens=entered, predicted=sampled, pairs=0)
    return work_flops(config, once) * (FORWARD_AND_BACKWARD + 1) // FORWARD_AND_BACKWARD


def attention_flops(config: Any, work: Work) -> int:
    """Those of attention's scores and sums, forward and backward, without recomputation."""
    width = config.num_attention_heads * config.head_dim
    return 4 * FORWARD_AND_BACKWARD * work.pairs * width * config.num_hidden_layers


def seconds(run: Callable[[], object]) -> float:
    """The time that one call takes."""
    device = torch.cuda if torch.cuda.is_available() else torch.cpu
    device.synchronize()
    began = time.perf_counter()
    run()
    device.synchronize()
    return time.perf_counter() - began


def gemm_rate(rows: int, inputs: int, outputs: int, dtype: torch.dtype, device: str, repeats: int) -> float:
    """FLOP/s of `[rows, inputs] @ [inputs, outputs]` with the faster of the kernels that torch brings."""
    x = torch.randn(rows, inputs, device=device).to(dtype)
    weight = torch.randn(outputs, inputs, device=device).to(dtype)

    def plain() -> Tensor:
        return torch.nn.functional.linear(x, weight)

    def onednn() -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")

    kernels = [plain, onednn] if device == "cpu" and torch.backends.mkldnn.is_available() else [plain]
    for kernel in kernels:
        kernel()
    times = {kernel: statistics.median(seconds(kernel) for _ in range(repeats)) for kernel in kernels}
    return 2 * rows * inputs * outputs / min(times.values())


def square_rate(dtype: str) -> float:
    """FLOP/s of this machine's processor on a large square."""
    return gemm_rate(SQUARE, SQUARE, SQUARE, getattr(torch, dtype), "cpu", repeats=3)


def shapes_rate(config: Any, rows: int, dtype: torch.dtype, device: str, repeats: int) -> float:
    """FLOP/s over the forward shapes of all linear layers of the model and its head, for `rows` tokens."""
    shapes = [*linear_shapes(config), (config.hidden_size, config.vocab_size)]
    rates = {shape: gemm_rate(rows, *shape, dtype, device, repeats) for shape in set(shapes)}
    operations = [2 * rows * inputs * outputs for inputs, outputs in shapes]
    return sum(operations) / sum(n / rates[shape] for n, shape in zip(operations, shapes, strict=True))


def make_batch(case: Case, lengths: Sequence[int] | None = None) -> Batch:
    """A batch of the case's shape, every group with signal. Lengths are given, or end by chance as in sampling."""
    draw = random.Random(0)
    objective = objectives.preset("trl", correction="off", correction_max=None)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(draw.randrange(2, case.vocabulary) for _ in range(n))

    def rollout(n: int) -> Rollout:
        return Rollout(tokens(n), (True,) * n, (-1.0,) * n, version=0, finish="stop", text="")

    if lengths is None:
        chance = 1 / case.vocabulary if case.ends else 0.0
        lengths = [
            next((n for n in range(1, case.max_tokens) if draw.random() < chance), case.max_tokens)
            for _ in range(case.rows)
        ]
    rewards = torch.tensor([[draw.random() for _ in range(case.group_size)] for _ in range(case.prompts)])
    groups = []
    for ticket, advantages in enumerate(objective.advantages(rewards).tolist()):
        prompt = Prompt(id=str(ticket), text=str(ticket), tokens=tokens(case.prompt_tokens))
        mine = lengths[ticket * case.group_size : (ticket + 1) * case.group_size]
        groups.append(Group(ticket, prompt, tuple(rollout(n) for n in mine), advantages=tuple(advantages)))
    return collate(groups, objective, case.max_tokens)


def measure(case: Case, dtype: str, repeats: int, warm_up: int = 2) -> dict[str, Any]:
    """Updates and the square take turns in this process. Sums in a fixed order, as in training."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as where:
        make(case, Path(where))
        config = AutoConfig.from_pretrained(f"{where}/model")
        policy = load_policy(f"{where}/model", compute=dtype, device="cpu")
    objective = objectives.preset("trl", correction="off", correction_max=None)
    learner, batch = Learner(policy, objective, Optimizer()), make_batch(case)
    work, updates, rates = count(batch), [], []
    for _ in range(warm_up):
        learner.update(batch, case.learning_rate)
    for _ in range(repeats):
        updates.append(seconds(lambda: learner.update(batch, case.learning_rate)))
        rates.append(square_rate(dtype))
    return {
        "tokens": work.tokens,
        "predicted": work.predicted,
        "flops": work_flops(config, work),
        "attention_flops": attention_flops(config, work),
        "update_s": updates,
        "gemm_flops_per_s": rates,
        "shapes_flops_per_s": shapes_rate(config, min(work.tokens, 8192), getattr(torch, dtype), "cpu", repeats),
    }


def share(measured: dict[str, Any]) -> float:
    """The products of an update over its time, as a share of the rate at which a square multiplies beside it."""
    return measured["flops"] / statistics.median(measured["update_s"]) / statistics.median(measured["gemm_flops_per_s"])


def row(name: str, dtype: str, measured: dict[str, Any]) -> list[str]:
    """A line of the table."""
    update = statistics.median(measured["update_s"])
    rate, square = measured["flops"] / update, statistics.median(measured["gemm_flops_per_s"])
    both = (measured["flops"] + measured["attention_flops"]) / update
    return [
        name,
        dtype,
        f"{measured['tokens']:,} + {measured['predicted']:,}",
        f"{measured['flops'] / 1e9:.1f} + {measured['attention_flops'] / 1e9:.1f}",
        f"{update:.3f} s",
        f"{rate / 1e9:.0f}",
        f"{square / 1e9:.0f}",
        f"**{share(measured):.0%}**",
        f"{both / square:.0%}",
        f"{measured['shapes_flops_per_s'] / 1e9:.0f}",
        f"{rate / measured['shapes_flops_per_s']:.0%}",
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--case", choices=CASES, action="append", help="small and 29m when not given")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="both when not given")
    parser.add_argument("--repeats", type=int, default=8, help="updates that count; two more warm up")
    given = parser.parse_args()
    pin(given.threads)
    torch.set_num_threads(given.threads)
    data = {
        (name, dtype): measure(CASES[name], dtype, given.repeats)
        for name in given.case or ("small", "29m")
        for dtype in given.dtype or DTYPES
    }
    work = ("tokens + predicted", "GFLOP + attention", "update", "GFLOP/s")
    shares = ("square GFLOP/s", "share", "with attention", "own shapes GFLOP/s", "share of it")
    text = table(("case", "dtype", *work, *shares), [row(*key, measured) for key, measured in data.items()])
    named = {" ".join(key): measured for key, measured in data.items()}
    shares_of = {f"{name}, share of the rate": share(measured) for name, measured in named.items()}
    publish(given, "Learning alone", text, named, ratios=shares_of)


if __name__ == "__main__":
    main()
