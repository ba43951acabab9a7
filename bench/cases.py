"""The work that is timed: a random Qwen3 checkpoint, prompts, and a reward, the same for every framework.

Imports nothing but transformers and tokenizers, so that it runs in any environment.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["CASES", "REWARDS", "Case", "for_lists", "make"]

EOS = 1


@dataclass(frozen=True, slots=True)
class Case:
    """One shape of work.

    With a vocabulary of V and random weights, a completion ends with chance 1/V at each token, so lengths are ragged
    around V; with `ends` false none ends before `max_tokens`. There are as many prompts as one step takes, so every
    step of every framework sees the same ones.
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
    heads: int = 0  # 0: as many as fit the hidden size
    kv_heads: int = 0  # 0: half of them
    head_dim: int = 32
    tied: bool = False  # one matrix for input and output embeddings
    ends: bool = True
    kl: float = 0.0
    learning_rate: float = 1e-5
    compute: str = "float32"  # or bfloat16: mixed precision, the weights stay in float32
    reward: str = "varied"
    workers: int = 1  # Cohort's reward processes
    staleness: int = 0  # Cohort's rollouts may be so many updates old
    busy: bool = False  # on each core another process computes all the time
    beside: str = ""  # the case that it differs from in one thing, and that is timed in the same rounds
    steps: int = 6  # of one turn, the first of which is a warm-up

    @property
    def rows(self) -> int:
        """Completions of one step."""
        return self.prompts * self.group_size

    def json(self) -> str:
        """The case as one word of a command line."""
        return json.dumps(asdict(self))

    @staticmethod
    def read(text: str) -> Case:
        """The case that `json` wrote."""
        return Case(**json.loads(text))


def _small(name: str, prompt_tokens: int = 64, max_tokens: int = 128, **others: Any) -> Case:
    return Case(name, 128, 4, 384, 64, prompt_tokens=prompt_tokens, max_tokens=max_tokens, **others)


def _ragged(name: str, **others: Any) -> Case:
    return Case(name, 128, 4, 384, 512, prompt_tokens=64, max_tokens=512, **others)


def _medium(name: str, **others: Any) -> Case:
    return Case(name, 512, 8, 1536, 8080, prompt_tokens=64, max_tokens=128, steps=4, **others)


def _large(name: str, prompt_tokens: int = 64, max_tokens: int = 32, **others: Any) -> Case:
    """Shaped as SmolLM2-135M. One in 49,152 tokens ends a completion, so all have the same length."""
    shape = {"heads": 9, "kv_heads": 3, "head_dim": 64, "tied": True, "steps": 3}
    return Case(name, 576, 30, 1536, 49152, prompt_tokens=prompt_tokens, max_tokens=max_tokens, **shape, **others)


CASES = {
    case.name: case
    for case in (
        _small("small"),
        _small("small-dead-groups", reward="half_dead", beside="small"),
        _small("small-slow-reward", reward="slow", workers=8, beside="small", steps=3),
        _small("small-kl", kl=0.04),
        _small("small-busy", busy=True, beside="small"),
        _ragged("ragged"),
        _ragged("ragged-slow-reward", reward="waiting", workers=8, beside="ragged"),
        _ragged("ragged-slow-reward-stale", reward="waiting", workers=8, staleness=1, beside="ragged"),
        _small("small-long-prompts", prompt_tokens=512, max_tokens=64),
        _medium("29m"),
        _medium("29m-bf16", compute="bfloat16"),
        _large("135m"),
        _large("135m-bf16", compute="bfloat16"),
    )
}


def varied(completion: str, alive: bool) -> float:
    """A number that differs inside a group and costs nothing."""
    return zlib.crc32(completion.encode()) / 2**32


def half_dead(completion: str, alive: bool) -> float:
    """The same for every completion of every other prompt: those groups say nothing."""
    return varied(completion, alive) if alive else 0.0


def slow(completion: str, alive: bool) -> float:
    """Half a second a completion, spent waiting, as for a server or a sandbox."""
    time.sleep(0.5)
    return varied(completion, alive)


async def waiting(completion: str, alive: bool) -> float:
    """The same, in a function that lets others wait too."""
    await asyncio.sleep(0.5)
    return varied(completion, alive)


REWARDS: dict[str, Callable[[str, bool], Any]] = {
    "varied": varied,
    "half_dead": half_dead,
    "slow": slow,
    "waiting": waiting,
}


def for_lists(name: str) -> Callable[..., Any]:
    """The reward as TRL calls one: with the lists of a whole batch, async where the reward is."""
    score = REWARDS[name]
    if not inspect.iscoroutinefunction(score):
        return lambda completions, alive, **_: [score(c, a) for c, a in zip(completions, alive, strict=True)]

    async def together(completions: list[str], alive: list[bool], **_: Any) -> list[float]:
        return await asyncio.gather(*(score(c, a) for c, a in zip(completions, alive, strict=True)))

    return together


def make(case: Case, directory: Path, prompts: int | None = None) -> None:
    """Write the checkpoint to `directory/model` and the prompts (`case.prompts` if not given) to
    `directory/prompts.jsonl`.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    words = ["<pad>", "<eos>", *(f"w{i}" for i in range(case.vocabulary - 2))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    torch.manual_seed(0)
    heads = case.heads or case.hidden // case.head_dim
    config = Qwen3Config(
        vocab_size=case.vocabulary,
        hidden_size=case.hidden,
        num_hidden_layers=case.layers,
        num_attention_heads=heads,
        num_key_value_heads=case.kv_heads or max(heads // 2, 1),
        head_dim=case.head_dim,
        intermediate_size=case.intermediate,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=0,
        tie_word_embeddings=case.tied,
        dtype="float32",
    )
    model = Qwen3ForCausalLM(config)
    if not case.ends:
        _never_end(model)
    model.save_pretrained(directory / "model")
    fast.save_pretrained(directory / "model")
    draw = torch.Generator().manual_seed(1)
    count = case.prompts if prompts is None else prompts
    rows = torch.randint(2, case.vocabulary, (count, case.prompt_tokens), generator=draw).tolist()
    with (directory / "prompts.jsonl").open("w", encoding="utf-8") as file:
        for i, row in enumerate(rows):
            line = {"prompt": " ".join(words[token] for token in row), "answer": "none", "alive": i % 2 == 0}
            file.write(json.dumps(line) + "\n")


def _never_end(model: Any) -> None:
    """Make the end token all but impossible: one channel of the residual stream is a positive constant that no layer
    writes to, and only the end token's row of the head reads it. Its logit is about -25, a chance of e^-25: a larger
    one would cost the other log-probs no precision in float32, but in bfloat16.
    """
    import torch

    if model.config.tie_word_embeddings:
        raise ValueError("a tied embedding cannot hold both the constant and the end token's weight")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
        model.model.embed_tokens.weight[:, 0] = 0.2
        tokens = torch.arange(2, model.config.vocab_size)[None, :64]
        constant = model.model(tokens).last_hidden_state[..., 0].min()
        model.lm_head.weight[:, 0] = 0
        model.lm_head.weight[EOS] = 0
        model.lm_head.weight[EOS, 0] = -25 / constant
