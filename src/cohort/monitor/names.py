"""Every number of metrics.jsonl: what it is called, its unit, what it says, and which way is better.

This is the one table that console, documents and detectors read. A name with {} stands for many: the reward,
level or domain that the number is about takes its place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["METRICS", "Metric", "metric"]

Better = Literal["up", "down", ""]
Merge = Literal["mean", "sum", "max", "by tokens"]  # how the reports of several updates become one


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a step."""

    name: str
    unit: str
    meaning: str
    better: Better = ""
    heading: str = ""  # on the live line
    form: str = "{:6.3f}"
    merge: Merge = "mean"


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("reward/mean", "", "Mean reward of all completions that were scored.", "up", "reward"),
        Metric("groups/signal", "share", "Groups whose accuracies differ.", "up", "signal", "{:4.0%}"),
        Metric("completions/mean_tokens", "tokens", "Mean length of a completion.", "", "length", "{:6.1f}"),
        Metric("completions/truncated", "share", "Completions cut off at the limit.", "down", "cut off", "{:5.1%}"),
        Metric("tokens_per_s", "1/s", "Tokens of the step divided by its time.", "up", "tokens/s", "{:7,.0f}"),
        Metric("policy/entropy", "nats", "Mean entropy of a token.", "", "entropy", "{:5.3f}", "by tokens"),
        Metric("loss", "", "The loss that was minimised.", "", "loss", "{:6.4f}"),
        Metric("grad_norm", "", "Norm of the gradient before it was clipped.", "", "grad norm"),
        Metric("pairs/accuracy", "share", "Pairs whose better answer scored higher.", "up", "right", "{:4.0%}"),
    )
}


def metric(name: str) -> Metric | None:
    """What a number of metrics.jsonl is; None for one that the table does not know."""
    if name in METRICS:
        return METRICS[name]
    patterns = (known for known in METRICS if "{}" in known)
    return next((METRICS[p] for p in patterns if re.fullmatch(re.escape(p).replace(r"\{\}", ".+"), name)), None)
