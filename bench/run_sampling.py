"""Sample a few batches with one engine; prints one JSON line. A worker of bench/sampling.py, in that engine's
environment.

    python bench/run_sampling.py cohort|generate|vllm CASE_AS_JSON DIRECTORY DTYPE BATCHES THREADS
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cases import EOS, Case
from turns import peak_gb, versions

__all__ = ["SIDES", "count_tokens", "open_cohort", "open_generate", "read_prompts"]

Prompts = list[list[int]]
Sample = Callable[[Prompts], int]  # token ids of a batch of prompts -> the number of tokens sampled


def open_cohort(case: Case, model: str, dtype: str, device: str = "auto") -> Sample:
    """Cohort's engine as training uses it: the learner's own float32 weights, computed with in `dtype` ("int8": in
    bfloat16, and products in bytes). It returns the log-prob of every token, which the others are not asked for.
    """
    from cohort.engine.engine import Engine
    from cohort.policy.load import load_policy
    from cohort.types import SampleRequest, Sampling

    in_bytes = dtype == "int8"
    policy = load_policy(model, compute="bfloat16" if in_bytes else dtype, device=device)
    engine = Engine(policy, precision="int8" if in_bytes else "auto")
    sampling = Sampling(max_tokens=case.max_tokens)

    def sample(prompts: Prompts) -> int:
        requests = [SampleRequest(i, tuple(row), case.group_size, i, sampling) for i, row in enumerate(prompts)]
        return sum(len(c.tokens) for _, completions in engine.sample(requests) for c in completions)

    return sample


def open_generate(case: Case, model: str, dtype: str, device: str = "cpu") -> Sample:
    """`generate` of transformers, as TRL calls it: one rectangle of rows, weights in `dtype`."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
    policy = loaded.to(device).eval()
    wanted = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": case.max_tokens}

    @torch.inference_mode()
    def sample(prompts: Prompts) -> int:
        rows = torch.tensor(prompts, device=device).repeat_interleave(
            case.group_size, 0
        )  # all prompts are equally long
        out = policy.generate(input_ids=rows, attention_mask=torch.ones_like(rows), pad_token_id=0, **wanted)
        return count_tokens(out[:, rows.shape[1] :])

    return sample


def count_tokens(completions: Any) -> int:
    """`[rows, width]` token ids -> how many stand before or at the first end of their row; padding follows it."""
    ends = (completions == EOS).long()
    return int((ends.cumsum(1) - ends == 0).sum())


def open_vllm(case: Case, model: str, dtype: str) -> Sample:
    """vLLM's CPU build at what was fastest for it here: compiled rather than eager, its engine in this process rather
    than in another, no detokenization, no log-probs, prefix caching on.
    """
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    os.environ |= {
        "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB: several times what a batch needs
        "VLLM_CPU_OMP_THREADS_BIND": cores,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CACHE_ROOT": str(Path(model).parent / "vllm"),
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    from vllm import LLM, SamplingParams

    longest = case.prompt_tokens + case.max_tokens
    engine = LLM(model, dtype=dtype, max_model_len=longest, max_num_seqs=case.rows, enable_prefix_caching=True)
    wanted = SamplingParams(n=case.group_size, temperature=1.0, max_tokens=case.max_tokens, detokenize=False)

    def sample(prompts: Prompts) -> int:
        out = engine.generate([{"prompt_token_ids": row} for row in prompts], wanted, use_tqdm=False)
        return sum(len(completion.token_ids) for request in out for completion in request.outputs)

    return sample


SIDES: dict[str, Callable[[Case, str, str], Sample]] = {
    "cohort": open_cohort,
    "generate": open_generate,
    "vllm": open_vllm,
}


def read_prompts(directory: Path) -> Prompts:
    """The prompts' token ids; word i of the tokenizer is token i + 2."""
    lines = (directory / "prompts.jsonl").read_text("utf-8").splitlines()
    return [[int(word[1:]) + 2 for word in json.loads(line)["prompt"].split()] for line in lines]


def main() -> None:
    side, case, directory, dtype = sys.argv[1], Case.read(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    batches, threads = int(sys.argv[5]), int(sys.argv[6])
    if side != "vllm":  # which binds its own
        import torch

        torch.set_num_threads(threads)
    sample = SIDES[side](case, str(directory / "model"), "bfloat16" if dtype == "int8" and side != "cohort" else dtype)
    prompts = read_prompts(directory)
    seconds, tokens = [], []
    for batch in range(batches):  # new prompts in each, so that nobody has them in a cache
        rows = prompts[batch * case.prompts : (batch + 1) * case.prompts]
        began = time.perf_counter()
        tokens.append(sample(rows))
        seconds.append(time.perf_counter() - began)
    rate = [n / s for n, s in zip(tokens, seconds, strict=True)]
    result = {"tokens_per_s": rate, "tokens": tokens, "peak_gb": peak_gb(), "versions": versions()}
    if side == "cohort":
        from learning import linear_shapes, square_rate
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(directory / "model")
        body = sum(inputs * outputs for inputs, outputs in linear_shapes(config))
        result["token_flops"] = 2 * (body + config.hidden_size * config.vocab_size)
        kind = "float32" if dtype == "float32" else "bfloat16"
        result["gemm_flops_per_s"] = [square_rate(kind) for _ in range(5)]  # of which the first warm up
    print(json.dumps(result))


if __name__ == "__main__":
    main()
