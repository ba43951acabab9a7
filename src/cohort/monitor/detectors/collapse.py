"""Of the policy as a whole: what it is paid, how sure it is, and how far it has gone from where it began."""

from __future__ import annotations

from cohort.monitor.detectors.finding import Found, Seen, detector, known, mean
from cohort.settings.monitor import Monitor

RATE = "Most likely the step size: lower optimizer.learning_rate (to a tenth), and begin from an earlier checkpoint"


@detector(1, "critical")
def kl_blow_up(seen: Seen, table: Monitor) -> Found | None:
    """The policy is far from the reference in one step."""
    found = seen.values("policy/kl", 1)
    if not found or found[0] < table.kl:
        return None
    return (
        f"policy/kl is {found[0]:.2f} nats a token; a run that goes well stays below 0.5",
        RATE,
        (),
        {"policy/kl": found[0]},
    )


@detector(1, "critical")
def reward_collapse(seen: Seen, table: Monitor) -> Found | None:
    """What was paid is lost: the mean reward of the last steps is a small part of the best that the window had, by more
    than the choice of prompts explains: three standard errors over groups. Where rewards are negative, the pass rate.
    """
    negative = min(seen.values("reward/mean"), default=0) < 0
    rewards = seen.values("groups/pass_rate" if negative else "reward/mean")
    if len(rewards) < 2 or seen.now.get("groups/failed"):
        return None
    tail = rewards[-2:] if len(rewards) > 2 else rewards[-1:]
    before = rewards[: -len(tail)]
    best, now = max(before), mean(tail)
    spread, groups = max(seen.values("reward/std"), default=0.0), max(min(seen.values("groups/sampled")), 1)
    if rewards[-1] > table.collapse * best or now > table.collapse * best or best - now <= 3 * spread / groups**0.5:
        return None
    return (
        f"the mean reward fell from {best:.2f} to {rewards[-1]:.2f} within {len(rewards)} steps",
        RATE,
        seen.tickets(lambda group: not group.pass_rate),
        {"best": best, "now": rewards[-1]},
    )


@detector(1, "critical")
def entropy_collapse(seen: Seen, table: Monitor) -> Found | None:
    """The policy has become sure of itself, and its groups are alike, yet not as they are right; or held-out accuracy
    has fallen meanwhile. Entropy is what reward is bought with (2505.22617), so low entropy alone is no alarm.
    """
    first, now = seen.at_first("policy/entropy_sampled"), seen.mean("policy/entropy_sampled", 3)
    if not now <= table.entropy_fall * first:
        return None
    before, signal, right = seen.at_first("groups/signal"), seen.mean("groups/signal"), seen.mean("groups/all_right")
    lost = before > 0 and signal <= 0.5 * before and signal + right < 0.5  # 0 before: nothing pays, as with a teacher
    held_out = known(seen.evaluations, "eval/pass@1")
    fell = len(held_out) > 1 and held_out[-1] < max(held_out) - table.gap
    if not lost and not fell:
        return None
    with_it = (
        f"groups with signal from {before:.0%} to {signal:.0%}, and {right:.0%} are all right"
        if lost
        else f"held-out pass@1 from {max(held_out):.0%} to {held_out[-1]:.0%}"
    )
    return (
        f"entropy fell from {first:.2f} to {now:.3f} nats, and {with_it}",
        "Lower optimizer.learning_rate, raise objective.clip_high (0.28 in DAPO), or set objective.entropy_coef",
        seen.tickets(lambda group: not group.has_signal),
        {"first": first, "now": now, "signal": signal},
    )


@detector(1, "critical")
def entropy_explosion(seen: Seen, table: Monitor) -> Found | None:
    """The policy dissolves: it is far less sure than it was, and samples noise."""
    first, now = seen.at_first("policy/entropy_sampled"), seen.mean("policy/entropy_sampled", 3)
    if not (now >= table.entropy_rise * first and now > 1):
        return None
    return (
        f"entropy rose from {first:.2f} to {now:.2f} nats a token",
        "Read a group (`cohort record rollouts`): is it language still? Lower optimizer.learning_rate or "
        "objective.entropy_coef",
        (),
        {"first": first, "now": now},
    )
