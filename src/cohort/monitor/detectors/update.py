"""Of the update: numbers that are none, gradients, clipping, and a sampler that is another policy than the learner."""

from __future__ import annotations

import math
import statistics

from cohort.algorithms.explain import recommended
from cohort.monitor.detectors.finding import Found, Seen, detector
from cohort.settings.monitor import Monitor

LEAST = 5  # gradient norms before one of them can stand out
SMALL = 1.0  # a norm that no usual clip touches
NEVER_NULL = ("loss", "grad_norm", "critic/loss")


@detector(2, "critical")
def not_finite(seen: Seen, table: Monitor) -> Found | None:
    """The loss or the gradient of a step is NaN or infinite (metrics.jsonl has null), or weights are."""
    lost = [name for name in NEVER_NULL if name in seen.now and not seen.values(name, 1)]
    weights = sum(seen.values("policy/not_finite", 1))
    if not lost and not weights:
        return None
    what = [f"{weights:,.0f} weights"] * bool(weights) + lost
    return (
        f"{' and '.join(what)} {'is' if what == lost[:1] else 'are'} no number",
        "The weights may be lost: go back to the last checkpoint, and lower optimizer.learning_rate",
        seen.tickets(lambda group: group.disposition == "trained"),
        {"weights": weights},
    )


@detector(1)
def gradient_spike(seen: Seen, table: Monitor) -> Found | None:
    """The gradient norm is many times the usual one, twice in a window: one alone is what clipping is for. ZClip
    (2504.02507) judges by the spread; here it is a ratio to the median, as steps without signal make any spread.
    """
    norms = [norm for norm in seen.values("grad_norm") if norm > 0]
    if len(norms) <= LEAST or not seen.values("grad_norm", 1) or norms[-1] != seen.now["grad_norm"]:
        return None
    usual = statistics.median(norms)
    bound = max(table.gradient * usual, SMALL)
    spikes = [line["step"] for line in seen.lines if (line.get("grad_norm") or 0) >= bound]
    if norms[-1] < bound or len(spikes) < 2:
        return None
    losses = [] if "groups/signal" in seen.now else seen.values("loss")
    before = statistics.median(losses) if losses else math.nan
    # Where nothing is sampled, a loss that jumps has seen other data, and its gradient follows.
    shifted = bool(losses) and losses[-1] > table.gradient * abs(before)
    return (
        f"grad_norm is {norms[-1]:.3g}, {norms[-1] / usual:.0f} times the usual {usual:.3g}, not for the first time"
        + (f", as the loss went from {before:.2g} to {losses[-1]:.2g}" if shifted else ""),
        "Are the data others from here on (a sorted file, task.careful_first that ends)? If not, lower "
        "optimizer.learning_rate"
        if shifted
        else "Look at the step's groups for a reward out of scale; optimizer.gradient_clip bounds what one step may do",
        (),
        {"grad_norm": norms[-1], "usual": usual, "since": float(spikes[0] or 0)},
    )


@detector(1)
def sampler_mismatch(seen: Seen, table: Monitor) -> Found | None:
    """Sampler and learner give the same tokens other probabilities, so the samples are those of another policy."""
    found = seen.mean("policy/mismatch", 3)
    if not found > table.mismatch:
        return None
    return (
        f"sampler and learner differ by {found:.3f} nats a token (policy/mismatch)",
        f"{recommended(found)}; or lower rollout.max_staleness, or sample as precisely as you learn",
        (),
        {"policy/mismatch": found},
    )


@detector(1)
def clip_fraction(seen: Seen, table: Monitor) -> Found | None:
    """Much of the batch had no gradient, as its ratio was out of bounds."""
    names = ("policy/clip_low", "policy/clip_high", "policy/clip_dual")
    found = sum(mean for name in names if (mean := seen.mean(name, 3)) > 0)
    if found < table.clipped:
        return None
    return (
        f"{found:.0%} of the tokens were clipped in the last steps",
        "The policy moves too far in one batch: lower optimizer.learning_rate, epochs or updates_per_batch",
        (),
        {"clipped": found},
    )
