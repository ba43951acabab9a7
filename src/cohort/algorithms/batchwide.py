"""What is decided once, over the whole optimizer batch, before it is split: which tokens stay in the policy term.

Filters, quantiles and covariances of a micro-batch are those of another, smaller batch, so a loss that takes them there
depends on the memory of the machine (TRL, verl and SkyRL do so). Here they are taken once, beside `token_weight`, from
the log-probs and entropies at the start of the update, and handed to `per_token_loss` row by row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from cohort.algorithms import corrections

if TYPE_CHECKING:
    from cohort.algorithms.losses import Tokens
    from cohort.algorithms.objective import Objective


class Batchwide(NamedTuple):
    """[B, T] each, detached; None where the objective has no such thing."""

    keep: Tensor | None = None  # bool: the tokens that stay in the policy term

    def rows(self, at: slice | Tensor | list[int]) -> Batchwide:
        """That of some rows."""
        return Batchwide(*(None if part is None else part[at] for part in self))


@torch.no_grad()
def decide(o: Objective, x: Tokens) -> Batchwide:
    """The decisions over a whole optimizer batch."""
    keep = None
    if o.filters:
        keep = corrections.filtered(o.filters, x.old_logprobs, x.behaviour, x.mask)
    return Batchwide(keep)
