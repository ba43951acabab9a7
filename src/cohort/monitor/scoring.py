"""What became of the scoring of a step's groups: for every reward how much it scored, what failed, how long it took."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from cohort.rewards import Combination, GroupLost, ScoredGroup
from cohort.types import InfrastructureError


def scoring_metrics(
    combination: Combination, outcomes: Sequence[ScoredGroup | InfrastructureError]
) -> dict[str, float]:
    """Under `reward/NAME/` the completions `scored` and `not_applicable`, those `gated` (where there is a gate), and
    those with each label; what the reward has logged, as its mean over groups; the `retries`; the groups lost to this
    reward (`failures`), and of these the `timeouts`. Under `time/reward/NAME/` the `mean_s` and `p95_s` of a group.
    """
    scored = [outcome for outcome in outcomes if isinstance(outcome, ScoredGroup)]
    lost = [outcome for outcome in outcomes if isinstance(outcome, GroupLost)]
    retries = [*(group.retries for group in scored), *(failure.retries for failure in lost)]
    metrics: dict[str, float] = {}
    for name in combination.weights:
        values = [value for group in scored for value in group.scores[name]]
        applied = sum(not math.isnan(value) for value in values)
        mine = [failure for failure in lost if failure.reward == name]
        labels = Counter(label for group in scored for label in group.labels.get(name, ()) if label is not None)
        counts = {
            "scored": applied,
            "not_applicable": len(values) - applied,
            "retries": sum(tries.get(name, 0) for tries in retries),
            "failures": len(mine),
            "timeouts": sum(failure.timeout for failure in mine),
            **labels,
        }
        if name in combination.gates:
            counts["gated"] = sum(
                shut and not math.isnan(value)
                for group in scored
                for shut, value in zip(combination.shut(group.scores)[name], group.scores[name], strict=True)
            )
        logged = [group.metrics[name] for group in scored if name in group.metrics]
        for metric in dict.fromkeys(key for of in logged for key in of):
            known = [of[metric] for of in logged if not math.isnan(of.get(metric, math.nan))]
            metrics[f"reward/{name}/{metric}"] = math.fsum(known) / len(known) if known else math.nan
        seconds = sorted(group.seconds[name] for group in scored)
        metrics |= {f"reward/{name}/{count}": float(value) for count, value in counts.items()}
        metrics[f"time/reward/{name}/mean_s"] = math.fsum(seconds) / len(seconds) if seconds else math.nan
        metrics[f"time/reward/{name}/p95_s"] = seconds[math.ceil(0.95 * len(seconds)) - 1] if seconds else math.nan
    return metrics
