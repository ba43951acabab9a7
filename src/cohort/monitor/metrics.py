"""The numbers of one GRPO step, from its groups and the learner's reports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from cohort.monitor.names import metric
from cohort.types import RIGHT, Group, Rollout, StepReport


def group_metrics(trained: Sequence[Group], left_out: Sequence[Group]) -> dict[str, float]:
    """Rewards, signal and lengths. Means are over all groups that were sampled and scored, left-out ones too."""
    scored = [group for group in (*trained, *left_out) if group.error is None]
    rollouts = [rollout for group in scored for rollout in group.rollouts]
    n = max(len(scored), 1)
    accuracy = [_known(group.accuracy) for group in scored]
    metrics = {
        "reward/mean": mean([r for group in scored for r in group.rewards]),
        "groups/sampled": float(len(trained) + len(left_out)),
        "groups/signal": sum(max(a) != min(a) for a in accuracy if a) / n,
        "groups/all_right": sum(min(a) == max(a) and a[0] >= RIGHT for a in accuracy if a) / n,
        "groups/all_wrong": sum(min(a) == max(a) and a[0] < RIGHT for a in accuracy if a) / n,
        "groups/left_out": float(len(left_out)),
        "groups/failed": float(sum(group.error is not None for group in left_out)),
        "completions/mean_tokens": mean([float(r.mask.count(True)) for r in rollouts]),
        "completions/truncated": mean([float(r.finish == "length") for r in rollouts]),
        "tokens/sampled": float(sum(r.mask.count(True) for g in (*trained, *left_out) for r in g.rollouts)),
    }
    if quarantined := sum(group.disposition == "quarantined" for group in left_out):
        metrics["groups/quarantined"] = float(quarantined)
    metrics["policy/entropy_sampled"] = _entropy(rollouts)
    if any(rollout.turns for rollout in rollouts):
        metrics |= turn_metrics(rollouts)
    for name in scored[0].scores if scored else ():
        metrics[f"reward/{name}/mean"] = mean([s for group in scored for s in group.scores[name]])
    return metrics


def _entropy(rollouts: Sequence[Rollout]) -> float:
    """The mean of minus the log-prob of a token that the policy chose, as the sampler gave it."""
    masks = [np.asarray(rollout.mask) for rollout in rollouts]
    total = math.fsum(
        float((np.asarray(rollout.logprobs, np.float64) * mask).sum()) for rollout, mask in zip(rollouts, masks)
    )
    count = sum(int(mask.sum()) for mask in masks)
    return -total / count if count else math.nan


def turn_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """What happened between the policy and its environment: turns and calls of a rollout on average, the share of calls
    that were answered with an error, and the share of rollouts that wanted more turns than there are.
    """
    calls = [call for rollout in rollouts for turn in rollout.turns for call in turn.observation.calls]
    return {
        "turns/mean": mean([float(len(rollout.turns)) for rollout in rollouts]),
        "turns/limit": mean([float(rollout.finish == "tool") for rollout in rollouts]),
        "tools/calls": len(calls) / len(rollouts),
        "tools/errors": mean([float(call.failed) for call in calls]),
        "tools/tokens": mean([float(rollout.mask.count(False)) for rollout in rollouts]),
    }


def merge_reports(reports: Sequence[StepReport]) -> dict[str, float]:
    """The reports of the updates on one step's batches as one, each number as its entry in `names` says; what that
    does not know is averaged. What measured nothing (NaN) is left out of maxima and of means over tokens.
    """
    tokens = [report.metrics["tokens/trained"] for report in reports]
    rules = {key: "mean" if (known := metric(key)) is None else known.merge for key in reports[0].metrics}
    return {key: _merged(rule, [report.metrics[key] for report in reports], tokens) for key, rule in rules.items()}


def _merged(rule: str, values: Sequence[float], tokens: Sequence[float]) -> float:
    if rule == "sum":
        return math.fsum(values)
    if rule == "max":
        return max(_known(values), default=math.nan)
    if rule == "by tokens":
        known = [(v, n) for v, n in zip(values, tokens, strict=True) if not math.isnan(v)]
        total = sum(n for _, n in known)
        return math.fsum(v * n for v, n in known) / total if total else math.nan
    return math.fsum(values) / len(values)


def _known(values: Iterable[float]) -> list[float]:
    return [float(v) for v in values if not math.isnan(v)]


def mean(values: Iterable[float]) -> float:
    """The mean of the numbers that there are (not NaN); NaN for none."""
    known = _known(values)
    return math.fsum(known) / len(known) if known else math.nan
