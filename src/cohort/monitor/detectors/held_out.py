"""Of held-out problems: what the training reward says, against what a verifier that is not trained on says."""

from __future__ import annotations

from cohort.monitor.detectors.finding import Found, Line, Seen, detector, known, mean
from cohort.settings.monitor import Monitor


def _measured(line: Line) -> tuple[float, float] | None:
    """The held-out accuracy of a line and half its 95% interval."""
    for name in ("eval/pass@1", "eval/greedy"):
        low, high, found = line.get(f"{name}_low"), line.get(f"{name}_high"), line.get(name)
        if found is not None:
            return found, 0.0 if low is None or high is None else (high - low) / 2
    return None


def _moved(seen: Seen) -> tuple[float, float, float] | None:
    """Of this step's evaluation: the best of those before it, what it is now, and what both intervals allow."""
    measured = [one for line in seen.evaluations if (one := _measured(line)) is not None]
    if len(measured) < 2 or not seen.evaluations or seen.evaluations[-1]["step"] != seen.now["step"]:
        return None
    best, now = max(measured[:-1]), measured[-1]
    return best[0], now[0], max(best[1], now[1])


@detector(1, "critical")
def proxy_gap(seen: Seen, table: Monitor) -> Found | None:
    """What is paid rises, and what is true falls: the reward is hacked (over-optimised, in 2210.10760)."""
    moved, first = _moved(seen), mean(known(seen.begun, "reward/mean"))
    paid = seen.mean("reward/mean")
    if moved is None or not paid > first + table.gap or not moved[1] < moved[0] - max(moved[2], 0.02):
        return None
    return (
        f"the reward rose from {first:.2f} to {paid:.2f}; held-out accuracy fell from {moved[0]:.1%} to {moved[1]:.1%}",
        "Read what is paid well and wrong (`cohort record rollouts RUN --where ...`), and mend the reward; an earlier "
        "checkpoint is the better model",
        seen.tickets(lambda group: group.pass_rate == 1),
        {"reward": paid, "best": moved[0], "now": moved[1]},
    )


@detector(1)
def held_out_drift(seen: Seen, table: Monitor) -> Found | None:
    """Training prompts are answered ever better, held-out ones are not: they are learnt by heart."""
    moved, first = _moved(seen), mean(known(seen.begun, "groups/pass_rate"))
    rate = seen.mean("groups/pass_rate")
    measured = _measured(seen.evaluations[0]) if seen.evaluations else None
    if moved is None or measured is None:
        return None
    gap, before = rate - moved[1], first - measured[0]
    if not (rate > first + table.gap and gap - before > table.gap + moved[2]) or moved[1] > moved[0]:
        return None
    return (
        f"{rate:.0%} of the training answers are right and {moved[1]:.0%} of the held-out ones; at first {first:.0%} "
        f"and {measured[0]:.0%}",
        "Fewer passes over the data or more of it; the best checkpoint is an earlier one",
        (),
        {"train": rate, "held_out": moved[1], "gap": gap, "before": before},
    )
