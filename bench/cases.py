"""The work that is timed: a random Qwen3 checkpoint, prompts, and a reward, the same for every framework.

Imports nothing but transformers and tokenizers, so that it runs in any environment.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

__all__ = ["CASES", "Case", "make", "reward"]


@dataclasses.dataclass(frozen=True)
class Case:
    """One shape of work. With a vocabulary of V and random weights, a completion ends with chance 1/V at each token, so
    lengths are ragged around V.
    """

    name: str
    hidden: int
    layers: int
    intermediate: int
    vocabulary: int
    prompt_tokens: int
    max_tokens: int
    prompts: int = 8
    group_size: int = 8
    kl: float = 0.0
    learning_rate: float = 1e-5


CASES = {
    case.name: case
    for case in (
        Case("small", 128, 4, 384, 64, prompt_tokens=64, max_tokens=128),
        Case("small-kl", 128, 4, 384, 64, prompt_tokens=64, max_tokens=128, kl=0.04),
        Case("small-long-prompts", 128, 4, 384, 64, prompt_tokens=512, max_tokens=64),
        Case("29m", 512, 8, 1536, 8080, prompt_tokens=64, max_tokens=128),
    )
}


def make(case: Case, directory: Path, prompts: int) -> None:
    """Write the checkpoint to `directory/model` and `prompts` prompts to `directory/prompts.jsonl`."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    words = ["<pad>", "<eos>", *(f"w{i}" for i in range(case.vocabulary - 2))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    torch.manual_seed(0)
    heads = case.hidden // 32
    config = Qwen3Config(
        vocab_size=case.vocabulary,
        hidden_size=case.hidden,
        num_hidden_layers=case.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(heads // 2, 1),
        head_dim=32,
        intermediate_size=case.intermediate,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        tie_word_embeddings=False,
        dtype="float32",
    )
    Qwen3ForCausalLM(config).save_pretrained(directory / "model")
    fast.save_pretrained(directory / "model")
    draw = torch.Generator().manual_seed(1)
    rows = torch.randint(2, case.vocabulary, (prompts, case.prompt_tokens), generator=draw).tolist()
    with (directory / "prompts.jsonl").open("w") as file:
        for row in rows:
            file.write(json.dumps({"prompt": " ".join(words[token] for token in row), "answer": "none"}) + "\n")


def reward(completion: str) -> float:
    """A number that differs inside a group and costs nothing."""
    return (len(completion) % 7) / 7
