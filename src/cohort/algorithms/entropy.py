"""Holding the policy's entropy near a target, by a coefficient that moves one step an update. OR1, 2505.22312."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class EntropyController:
    """`applied` is the coefficient of the entropy bonus in the next update: `coef` if the entropy measured last was at
    most `target`, else 0, as before the first update. `update(entropy)` takes the mean entropy (nats a token) of an
    update, over its whole batch, and moves `coef` by `step`: up where the entropy is at most the target, else down,
    inside `low..high`.

    Raises ValueError for bounds that exclude the coefficient, a step that is not positive, and an entropy that is no
    number.
    """

    def __init__(self, coef: float, target: float, step: float, low: float = 0.0, high: float = 1.0):
        if not low <= coef <= high:
            raise ValueError(f"coef={coef:g} must lie between low={low:g} and high={high:g}")
        if not step > 0:
            raise ValueError(f"step={step:g} must be greater than 0, or the coefficient never moves")
        self.coef, self.target, self.step, self.low, self.high = coef, target, step, low, high
        self.last: float | None = None  # the entropy that was measured last

    @property
    def applied(self) -> float:
        """The coefficient of the next update."""
        return self.coef if self.last is not None and self.last <= self.target else 0.0

    def update(self, entropy: float) -> float:
        """Take the entropy of an update. Returns the new `coef`."""
        if not math.isfinite(entropy):
            raise ValueError(f"entropy={entropy} must be a finite number: the mean entropy of an update")
        moved = self.coef + (self.step if entropy <= self.target else -self.step)
        self.coef, self.last = min(max(moved, self.low), self.high), entropy
        return self.coef

    def state(self) -> dict[str, float | None]:
        """What `restore` takes; ready for JSON."""
        return {"coef": self.coef, "last": self.last}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        self.coef, self.last = state["coef"], state["last"]
