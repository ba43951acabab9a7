"""How far the engine's log-probs are from a plain forward pass of the same model: `python tools/engine_differences.py`.

Prints the table of docs/engine.md. Random Qwen3 models of 3 layers and width 128, their weights scaled by 3 so that the
distributions are far from uniform; 4 prompts of 5 to 40 tokens, 4 completions of 24 tokens each, seed 0, one thread.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from cohort.engine.engine import Engine
from cohort.policy.policy import Policy
from cohort.types import SampleRequest, Sampling

VOCABULARIES, TEMPERATURES = (768, 32_000, 151_936), (1.0, 0.7, 0.001)


class Tokenizer(SimpleNamespace):
    """As little as a policy asks for."""

    def __len__(self) -> int:
        return 2


def model_of(vocabulary: int) -> Any:
    """A random model, far from uniform."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=256, eos_token_id=1,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(3)
    return model


@torch.no_grad()
def largest(policy: Policy, plain: Any, temperature: float) -> float:
    """The largest difference of a log-prob."""
    prompts = [tuple(range(5, 5 + n)) for n in (5, 12, 25, 40)]
    requests = [SampleRequest(i, p, 4, i, Sampling(24, temperature)) for i, p in enumerate(prompts)]
    found = 0.0
    for request, completions in Engine(policy).sample(requests):
        for one in completions:
            tokens = torch.tensor([[*request.tokens, *one.tokens]])
            logits = plain(tokens).logits[0, len(request.tokens) - 1 : -1] / temperature
            expected = logits.log_softmax(-1).gather(-1, tokens[0, len(request.tokens) :, None])[:, 0]
            found = max(found, float((torch.tensor(one.logprobs) - expected).abs().max()))
    return found


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(f"| vocabulary | path | {' | '.join(f'temperature {t:g}' for t in TEMPERATURES)} |")
    print("|---|---|" + "---|" * len(TEMPERATURES))
    for vocabulary in VOCABULARIES:
        model = model_of(vocabulary)
        plain = copy.deepcopy(model)
        policy = Policy(model, Tokenizer(eos_token_id=1, chat_template=None))
        for path in ("compiled", "plain"):
            if path == "plain":
                policy.fused = None
            found = [f"{largest(policy, plain, t):.1e}" for t in TEMPERATURES]
            print(f"| {vocabulary:,} | {path} | {' | '.join(found)} |")


if __name__ == "__main__":
    main()
