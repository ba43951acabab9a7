"""Token ids to text: a view for people and verifiers, never the way back."""

from __future__ import annotations

from typing import Any

import numpy as np

from cohort.frozen_array import FrozenArray
from cohort.types import Completion, Rollout


def to_rollout(completion: Completion, tokenizer: Any, stop: tuple[str, ...] = ()) -> Rollout:
    """A single-turn rollout: every token is the policy's. Special tokens (the end token) are left out of the text, and
    so is what follows a stop string inside the last token.
    """
    text = tokenizer.decode(completion.tokens, skip_special_tokens=True)
    if completion.finish == "stop" and (ends := [text.find(s) + len(s) for s in stop if s in text]):
        text = text[: min(ends)]  # with the stop string: format rewards want to see `</answer>`
    mask = FrozenArray(np.ones(len(completion.tokens), np.bool_))
    return Rollout(completion.tokens, mask, completion.logprobs, completion.version, completion.finish, text)
