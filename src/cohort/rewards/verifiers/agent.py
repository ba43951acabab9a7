"""What an agent paid itself: the rewards that it returned, of a rollout or of its calls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def agent(transcript: Sequence[Mapping[str, Any]], by_call: bool = False) -> float | None:
    """The sum of the rewards in a transcript; None where the agent returned none. With `by_call` training
    supervises each call with its own, as it does steps.
    """
    paid = [float(message["reward"]) for message in transcript if message.get("reward") is not None]
    return math.fsum(paid) if paid else None
