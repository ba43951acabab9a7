"""From logits to tokens: one uniform number a row, inverted through the cumulative distribution.

Filling a `[rows, vocabulary]` tensor with exponential or Gumbel noise costs more than a small model's forward pass;
one uniform a row does the same. It also makes a rollout depend on its own seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class RowSampling(NamedTuple):
    """Sampling settings, one value a row (`[n]`)."""

    temperature: Tensor  # 0: greedy
    top_p: Tensor
    top_k: Tensor  # 0: off
    min_p: Tensor

    @staticmethod
    def empty(column: Callable[[torch.dtype], Tensor]) -> RowSampling:
        """Of rows that are none yet, each in a `column` of its type."""
        return RowSampling(*map(column, (torch.float32, torch.float32, torch.long, torch.float32)))

    def take(self, rows: Tensor | slice) -> RowSampling:
        """The settings of some rows."""
        return RowSampling(*(column[rows] for column in self))


def choose(logits: Tensor, uniform: Tensor, sampling: RowSampling, truncates: bool) -> tuple[Tensor, Tensor]:
    """Tokens `[n]` and their float32 log-probs `[n]` under the distribution that they were drawn from.

    logits `[n, V]` float32; uniform `[n]` float64 in [0, 1). Truncated distributions are renormalised. A greedy row
    takes the arg max and reports its log-prob at temperature 1 (that of its own distribution would be 0 always).
    """
    greedy = sampling.temperature == 0
    scaled = logits / torch.where(greedy, 1.0, sampling.temperature)[:, None]
    logprobs = scaled.log_softmax(-1)
    if truncates:
        logprobs = _truncate(logprobs, sampling)
    cumulative = logprobs.exp().cumsum(-1, dtype=torch.float64)  # [n, V]
    # The first token whose cumulative probability exceeds u * total: never one of probability 0, whatever the rounding.
    target = uniform[:, None] * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, target, right=True)[:, 0].clamp_(max=logits.shape[-1] - 1)
    tokens = torch.where(greedy, logits.argmax(-1), drawn)
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


def stop_string(tokenizer: Any, stops: Sequence[str], tokens: Tensor) -> str | None:
    """The stop string that the text of `tokens` `[n]` ends in or contains since the last of them, if any."""
    if not stops:
        return None
    # Decode only the tail that can hold a stop string: every token is at least one byte of text.
    tail = max(len(stop.encode()) for stop in stops) + 4
    text = tokenizer.decode(tokens[-tail:].tolist())
    return next((stop for stop in stops if stop in text), None)


def _truncate(logprobs: Tensor, sampling: RowSampling) -> Tensor:
    """min-p, then top-k, then top-p (on what is left, renormalised), in vLLM's order.

    Ties at the k-th place are all kept. Greedy rows pass through.
    """
    off = torch.finfo(logprobs.dtype).min
    greedy = (sampling.temperature == 0)[:, None]
    kept = logprobs
    if bool((sampling.min_p > 0).any()):
        floor = kept.amax(-1, keepdim=True) + sampling.min_p.clamp(min=1e-30).log()[:, None]
        kept = kept.masked_fill((sampling.min_p > 0)[:, None] & (kept < floor), off)
    if bool((sampling.top_k > 0).any()):
        ordered = kept.sort(-1, descending=True).values
        last = torch.where(sampling.top_k > 0, sampling.top_k, kept.shape[-1]).clamp(max=kept.shape[-1]) - 1
        kept = kept.masked_fill(kept < ordered.gather(-1, last[:, None]), off)
    if bool((sampling.top_p < 1).any()):
        ordered, order = kept.log_softmax(-1).sort(-1, descending=True)
        before = ordered.exp().cumsum(-1, dtype=torch.float64) - ordered.exp()
        # A token stays while the mass before it is below p; the most likely one always stays.
        drop = (before >= sampling.top_p[:, None]) & (before > 0) & (sampling.top_p < 1)[:, None]
        kept = kept.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), off)
    truncates = (sampling.top_p < 1) | (sampling.top_k > 0) | (sampling.min_p > 0)
    return torch.where(truncates[:, None] & ~greedy, kept.log_softmax(-1), logprobs)
