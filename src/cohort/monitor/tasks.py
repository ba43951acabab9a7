"""How hard a step's prompts were: a histogram of their pass rates, and what became of every level and source."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from cohort.types import Group

BUCKETS = 5  # fifths; the last holds its upper end
MOST = 30  # values of one tag; a tag with more is no level or domain but a name for every row
TAGS = {"level": "task/level", "domain": "domain"}


def task_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """`task/pass_rate_0` to `_4`: the shares of prompts whose pass rate is in [0, 0.2), [0.2, 0.4), ... [0.8, 1]. For
    every value of the tags `level` and `domain`: its share of the prompts and its pass rate.

    Groups that could not be scored are left out.
    """
    rated = [(group, rate) for group in groups if (rate := group.pass_rate) is not None]
    if not rated:
        return {}
    counts = [0] * BUCKETS
    for _, rate in rated:
        counts[min(int(rate * BUCKETS), BUCKETS - 1)] += 1
    metrics = {f"task/pass_rate_{bucket}": count / len(rated) for bucket, count in enumerate(counts)}
    for tag, prefix in TAGS.items():
        by_value: dict[str, list[float]] = {}
        for group, rate in rated:
            if (value := _value(group.prompt.tags.get(tag))) is not None:
                by_value.setdefault(value, []).append(rate)
        for value, rates in sorted(by_value.items()) if len(by_value) <= MOST else ():
            metrics[f"{prefix}/{value}/share"] = len(rates) / len(rated)
            metrics[f"{prefix}/{value}/pass_rate"] = math.fsum(rates) / len(rates)
    return metrics


def _value(tag: Any) -> str | None:
    """A tag as part of a metric's name; None for what is no name."""
    if isinstance(tag, bool) or not isinstance(tag, (int, str)) or not 0 < len(str(tag)) <= 40:
        return None
    return re.sub(r"[^\w.-]+", "_", str(tag))
