"""One token for every running row: what the engine asks of the model. See `policy.decode`, `fused` and
`generic` for the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Decoder(Protocol):
    """Holds the keys and values of prompts (in slots) and of the rows that continue them (in places)."""

    def refresh(self) -> None:
        """Called before a prompt or token is computed and after anybody else may have changed the weights."""

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[list[int], Tensor]:
        """Run prompts through the model, each once. Their slots, and the logits `[P, V]` after them."""

    def decode(self, tokens: Tensor, slot: Tensor, place: Tensor, own: Tensor) -> Tensor:
        """Logits `[n, V]` after the token `tokens[i]` of each row. Row i continues the prompt in slot[i], has `own[i]`
        tokens before this one, and keeps what it knows in place[i]. All `[n]`.
        """

    def release(self, slot: int) -> None:
        """No row continues this prompt any more."""

    def move(self, source: Tensor, target: Tensor, tokens: int, place: Tensor) -> None:
        """Rows `source` have become rows `target` `[m]`, each with at most `tokens` tokens of its own.

        `place` `[rows]` says where every row keeps what it knows, and may be changed: the places stay distinct.
        """

    def copy(self, source: Tensor, target: Tensor, tokens: int, place: Tensor) -> None:
        """Rows `target` `[m]` continue from what rows `source` know, which go on, too: the same prompt, and `tokens`
        tokens of their own.
        """

    def resume(self, rows: Sequence[Sequence[int]], prompts: Sequence[int], place: Sequence[int]) -> None:
        """Compute what is known of the rows anew that have own tokens to know of: `rows[i]` is a prompt of `prompts[i]`
        tokens with these behind it, and keeps what it knows in place[i].
        """
