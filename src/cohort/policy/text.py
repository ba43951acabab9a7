"""Token ids to text: a view for people and verifiers, never the way back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from cohort.chat import continued as continued
from cohort.types import Completion


def silent(tokenizer: Any, ends: Collection[int] = ()) -> frozenset[int]:
    """The tokens that no text has: what ends a completion (`ends`, beside the tokenizer's own), what pads and what
    begins one. All others are text, also those that a tokenizer calls special: some write `<think>` so.
    """
    own = (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id)
    return frozenset({*ends, *(token for token in own if token is not None)})


def reader(tokenizer: Any, ends: Collection[int] = ()) -> Callable[[Sequence[int]], str]:
    """What gives tokens as the text that rewards, tools and people see."""
    left_out, decode = silent(tokenizer, ends), tokenizer.decode

    def read(tokens: Sequence[int]) -> str:
        text: str = decode([token for token in tokens if token not in left_out])
        return text

    return read


def completion_reader(
    tokenizer: Any, stop: tuple[str, ...] = (), ends: Collection[int] = ()
) -> Callable[[Completion], str]:
    """What gives a completion as text: without silent tokens, and without what follows a stop string inside the last
    token.
    """
    read = reader(tokenizer, ends)

    def text_of(completion: Completion) -> str:
        text = read(completion.tokens)
        found = [text.find(s) + len(s) for s in stop if s in text] if completion.finish == "stop" else []
        return text[: min(found, default=None)]  # with the stop string: format rewards want to see `</answer>`

    return text_of
