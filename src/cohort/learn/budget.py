"""How many tokens are computed at once, and what is done where memory does not hold so many."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

from cohort.machine import is_out_of_memory
from cohort.types import UserError
from cohort.wording import one_line

LEAST = 16  # tokens: where so few do not fit, it is not they that take the memory

T = TypeVar("T")


class Budget:
    """The tokens of a micro-batch. Where memory runs out they are halved, and stay so: for the rest of the run, and of
    those that go on from its checkpoints.

    The gradient of a batch is a sum over its tokens with weights that are fixed before it is split, so nothing changes
    but the order in which numbers are added, and with it the last bits.
    """

    def __init__(self, tokens: int):
        self.tokens = self.most = tokens

    def spend(self, compute: Callable[[int], T], undo: Callable[[], None] = lambda: None) -> T:
        """What `compute` makes of so many tokens at once. Where memory runs out `undo` takes back what it has added up,
        and it begins again with half of them. Raises `UserError` where that does not help.
        """
        while True:
            try:
                return compute(self.tokens)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                why = one_line(error) or type(error).__name__
            # Only here, outside of the handler, are the tensors free that the error's frames held.
            undo()
            if self.tokens <= LEAST:
                raise UserError(
                    f"there is not enough memory, not even for {self.tokens} tokens at once ({why}): train an adapter "
                    "(policy.lora), lower rollout.max_tokens, or take a machine with more"
                )
            self.tokens = max(LEAST, self.tokens // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            warnings.warn(
                f"memory ran out ({why}), so from here on {self.tokens:,} tokens are computed at once and not "
                f"{self.most:,}, as optimizer.tokens_per_micro_batch says: the same gradient but for rounding",
                stacklevel=2,
            )
