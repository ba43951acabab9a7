"""One GPU: decoding against the memory's bandwidth, learning against its matmuls, and a step against TRL.

    .venv/bin/python bench/gpu.py [--trl .venv-trl/bin/python] [--rounds 3]
    .venv/bin/python bench/gpu.py --device cpu --tiny          # the same code on a small model, anywhere

The model has the shape of Qwen3-0.6B and random weights: float32 ones that are trained, computed with in bfloat16.

Decoding: 8 prompts of 256 tokens, 8 completions of 256 each, none of which ends early. Every decode step must read all
weights once in bfloat16 and the keys and values of every row, a prompt's once a group; at the bandwidth that a copy
reaches here, that takes the time that is called the limit. The prefill is timed apart and taken off. `generate` of
transformers does the same work beside it.

Learning: as in bench/learning.py, an update's unavoidable operations in the linear layers, divided by its time, as a
share of what a large bfloat16 matmul reaches here.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cases import Case, make
from turns import arguments, median, publish, table, take_turns, turn

__all__ = ["TINY", "decode_bytes", "measure"]

# The embeddings are not tied, as those of Qwen3-0.6B are: an end that never comes needs a head of its own.
SHAPE: dict[str, Any] = {"ends": False, "compute": "bfloat16", "steps": 4}
LARGE = Case("qwen3-0.6b", 1024, 28, 3072, 151_936, prompt_tokens=256, max_tokens=256, heads=16, head_dim=128, **SHAPE)
TINY = Case("tiny", 64, 2, 128, 128, prompt_tokens=8, max_tokens=8, prompts=2, group_size=2, **SHAPE)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the device reaches: `bandwidth` in bytes/s of a copy, reads and writes; `matmul` in FLOP/s."""

    bandwidth: float
    matmul: float


def decode_bytes(config: Any, case: Case) -> int:
    """Bytes that decoding must read, over all steps but the first token's, at two bytes a number: the weights that are
    multiplied with (not the input embedding, of which each row reads a line), and the keys and values.
    """
    from learning import linear_shapes

    weights = sum(a * b for a, b in linear_shapes(config)) + config.hidden_size * config.vocab_size
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim  # its keys and values
    steps = case.max_tokens - 1
    own = case.rows * steps * (steps + 1) // 2  # a row at step t has t tokens of its own
    return 2 * (steps * weights + token * (steps * case.prompts * case.prompt_tokens + own))


def machine_rates(device: str, tiny: bool) -> Machine:
    """Measure the device: the best of several tries, as limits are."""
    import torch
    from learning import gemm_rate, seconds

    numbers, side = (1 << 22, 256) if tiny else (1 << 29, 8192)
    source = torch.zeros(numbers, dtype=torch.bfloat16, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    best = min(seconds(lambda: target.copy_(source)) for _ in range(10))
    matmul = max(gemm_rate(side, side, side, torch.bfloat16, device, repeats=5) for _ in range(3))
    return Machine(bandwidth=2 * source.nbytes / best, matmul=matmul)


def decode_seconds(open_side: Any, case: Case, model: str, device: str, repeats: int) -> list[float]:
    """Seconds of sampling a batch, its prefill and first token taken off."""
    from learning import seconds
    from run_sampling import read_prompts

    prompts = read_prompts(Path(model).parent)
    whole = open_side(case, model, case.compute, device)
    first = open_side(replace(case, max_tokens=1), model, case.compute, device)
    for sample in (whole, first):
        sample(prompts)
    taken = []
    for _ in range(repeats):
        taken.append(seconds(lambda: whole(prompts)) - seconds(lambda: first(prompts)))
    return taken


def learn(case: Case, model: str, device: str, repeats: int) -> dict[str, Any]:
    """Seconds of every update, and the operations of one."""
    from learning import attention_flops, count, make_batch, seconds, work_flops
    from transformers import AutoConfig

    from cohort.algorithms import objectives
    from cohort.learn.learner import Learner
    from cohort.policy.load import load_policy
    from cohort.settings import Optimizer

    policy = load_policy(model, compute=case.compute, device=device)
    learner = Learner(policy, objectives.preset("trl", correction="off", correction_max=None), Optimizer())
    config, batch = AutoConfig.from_pretrained(model), make_batch(case)
    for _ in range(2):
        learner.update(batch, case.learning_rate)
    return {
        "update_s": [seconds(lambda: learner.update(batch, case.learning_rate)) for _ in range(repeats)],
        "flops": work_flops(config, count(batch)),
        "attention_flops": attention_flops(config, count(batch)),
    }


def measure(case: Case, directory: Path, device: str, given: argparse.Namespace) -> dict[str, Any]:
    """All numbers, as they were measured."""
    from run_sampling import open_cohort, open_generate
    from transformers import AutoConfig

    model = str(directory / "model")
    config = AutoConfig.from_pretrained(model)
    limits = machine_rates(device, given.tiny)
    found: dict[str, Any] = {
        "case": case.name,
        "device": device,
        "bandwidth": limits.bandwidth,
        "matmul": limits.matmul,
        "decode_bytes": decode_bytes(config, case),
        "decoded_tokens": case.rows * (case.max_tokens - 1),
        "decode_s": decode_seconds(open_cohort, case, model, device, given.rounds),
        "generate_s": decode_seconds(open_generate, case, model, device, given.rounds),
        **learn(case, model, device, given.rounds),
    }
    words = (case.json(), directory, case.steps, given.threads)
    sides = {"cohort": partial(turn, sys.executable, "run_cohort.py", *words, warm_up=1)}
    if given.trl:
        sides["trl"] = partial(turn, given.trl, "run_trl.py", *words, warm_up=1)
    return {**found, "steps": take_turns(sides, given.rounds)}


def rows(found: dict[str, Any]) -> list[list[str]]:
    """The table: what, measured, what it is compared with, and the share or ratio."""
    decode, generate = statistics.median(found["decode_s"]), statistics.median(found["generate_s"])
    limit = found["decode_bytes"] / found["bandwidth"]
    rate, at_limit, of_generate = (f"{found['decoded_tokens'] / s:,.0f} tokens/s" for s in (decode, limit, generate))
    learned, matmul = found["flops"] / statistics.median(found["update_s"]), found["matmul"]
    ours, theirs = found["steps"]["cohort"], found["steps"].get("trl")
    lines = [
        ["decode", rate, f"bandwidth limit: {at_limit}", f"{limit / decode:.0%}"],
        ["decode", rate, f"generate: {of_generate}", f"{generate / decode:.1f}x"],
        ["learner", _tflops(learned), f"matmul: {_tflops(matmul)}", f"{learned / matmul:.0%} MFU"],
        ["step", _step(ours), "TRL: not measured (--trl)", "-"],
    ]
    if theirs:
        lines[-1][2:] = [f"TRL: {_step(theirs)}", f"{median(theirs, 'step_s') / median(ours, 'step_s'):.1f}x"]
    return lines


def _tflops(rate: float) -> str:
    return f"{rate / 1e12:.3g} TFLOP/s"


def _step(turns: list[dict[str, Any]]) -> str:
    return f"{median(turns, 'step_s'):.3f} s, {max(t['peak_gb'] for t in turns):.2f} GB"


def main() -> None:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--prompts", type=int, default=LARGE.prompts, help="of a step, 8 completions each")
    parser.add_argument("--tiny", action="store_true", help="a model and batches that take seconds on a CPU")
    parser.add_argument("--trl", help="the Python of an environment with TRL; without it, TRL is left out")
    given = parser.parse_args()
    if given.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch is imported, here and in the processes started
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda: torch sees no GPU; try --device cpu --tiny")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(given.threads)
    case = TINY if given.tiny else replace(LARGE, prompts=given.prompts)
    with tempfile.TemporaryDirectory() as where:
        make(case, Path(where))
        found = measure(case, Path(where), device, given)
    found["name"] = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    text = table(("what", "measured", "against", "share or ratio"), rows(found))
    publish(given, f"{case.name} on {found['name']}", text, found)


if __name__ == "__main__":
    main()
