"""One token for every active row: what the scheduler asks of the model, and the plain answer to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from cohort.engine.cache import DecodeLayout, KVCache
from cohort.policy.attention import PackedGroups
from cohort.policy.policy import Policy

__all__ = ["Decoder", "PlainDecoder"]


class Decoder(Protocol):
    """Holds the keys and values of prompts (in slots) and of the rows that continue them (in places)."""

    def refresh(self) -> None:
        """Called before a prompt or token is computed and after anybody else may have changed the weights."""
        ...

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[list[int], Tensor]:
        """Run prompts through the model, each once. Their slots, and the logits `[P, V]` after them."""
        ...

    def decode(self, tokens: Tensor, slot: Tensor, place: Tensor, own: Tensor) -> Tensor:
        """Logits `[n, V]` after the token `tokens[i]` of each row. Row i continues the prompt in slot[i], has `own[i]`
        tokens before this one, and keeps what it knows in place[i]. All `[n]`.
        """
        ...

    def release(self, slot: int) -> None:
        """No row continues this prompt any more."""
        ...

    def compact(self) -> Tensor | None:
        """Called when no prompt waits: renumber the slots if that saves work. Old slot -> new slot, or None."""
        ...

    def move(self, source: Tensor, target: Tensor, tokens: int, place: Tensor) -> None:
        """Rows `source` have become rows `target` `[m]`, each with at most `tokens` tokens of its own.

        `place` `[rows]` says where every row keeps what it knows, and may be changed: the places stay distinct.
        """
        ...


class PlainDecoder:
    """The model's own forward pass over a `DecodeLayout`. Row i's place is i, so the active rows are a view."""

    def __init__(self, policy: Policy, rows: int):
        self.policy = policy
        self.cache = KVCache(rows)

    def refresh(self) -> None:
        """See `Decoder`: the weights are the model's own."""
        return

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[list[int], Tensor]:
        """See `Decoder`."""
        layout = PackedGroups(prompts, device=self.policy.device).keep_kv()
        hidden = self.policy.hidden(layout.tokens, layout.positions, layout)
        logits = self.policy.logits(hidden[layout.prompt_ends])
        assert layout.kv is not None
        return self.cache.add_prefixes([len(prompt) for prompt in prompts], layout.kv), logits

    def decode(self, tokens: Tensor, slot: Tensor, place: Tensor, own: Tensor) -> Tensor:
        """See `Decoder`."""
        layout = DecodeLayout(self.cache, slot, own)
        return self.policy.logits(self.policy.hidden(tokens[None], layout.positions[None], layout))

    def release(self, slot: int) -> None:
        """See `Decoder`."""
        self.cache.free_prefix(slot)

    def compact(self) -> Tensor | None:
        """See `Decoder`."""
        return self.cache.compact_prefixes()

    def move(self, source: Tensor, target: Tensor, tokens: int, place: Tensor) -> None:
        """See `Decoder`."""
        if self.cache.own:
            self.cache.move(source, target, tokens)
