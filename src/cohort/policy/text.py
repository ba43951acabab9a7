"""Token ids to text: a view for people and verifiers, never the way back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from cohort.chat import continued as continued
from cohort.frozen_array import FrozenArray
from cohort.types import Completion, Rollout


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


def to_rollouts(
    tokenizer: Any, stop: tuple[str, ...] = (), ends: Collection[int] = ()
) -> Callable[[Completion], Rollout]:
    """What makes a completion a single-turn rollout, in which every token is the policy's. Silent tokens are left out
    of its text, and so is what follows a stop string inside the last token.
    """
    read = reader(tokenizer, ends)

    def made(completion: Completion) -> Rollout:
        text = read(completion.tokens)
        if completion.finish == "stop" and (found := [text.find(s) + len(s) for s in stop if s in text]):
            text = text[: min(found)]  # with the stop string: format rewards want to see `</answer>`
        mask = FrozenArray(np.ones(len(completion.tokens), np.bool_))
        return Rollout(completion.tokens, mask, completion.logprobs, completion.version, completion.finish, text)

    return made


def to_rollout(
    completion: Completion, tokenizer: Any, stop: tuple[str, ...] = (), ends: Collection[int] = ()
) -> Rollout:
    """One completion as a rollout, see `to_rollouts`."""
    return to_rollouts(tokenizer, stop, ends)(completion)
