"""Of the rewards: components against each other, and credit for what is not right."""

from __future__ import annotations

import math

from cohort.monitor.detectors.finding import Found, Seen, detector
from cohort.settings.monitor import Monitor

LEAST = 5  # steps


def _components(seen: Seen, number: str) -> dict[str, float]:
    """The mean over the window of `reward/NAME/number`, by name, where enough steps have it."""
    names = (name.split("/")[1] for name in seen.now if name.startswith("reward/") and name.endswith(f"/{number}"))
    return {
        name: seen.mean(f"reward/{name}/{number}")
        for name in names
        if len(seen.values(f"reward/{name}/{number}")) >= LEAST
    }


@detector(1)
def reward_conflict(seen: Seen, table: Monitor) -> Found | None:
    """A reward pays inside groups for what another, that says what is right, does not: one can only be had without the
    other.
    """
    against = {name: value for name, value in _components(seen, "with_accuracy").items() if value < -table.conflict}
    if not against:
        return None
    name, value = min(against.items(), key=lambda item: item[1])
    return (
        f"inside groups the reward {name} goes against the accuracy (correlation {value:+.2f})",
        f"Right answers are charged for it: lower the weight of {name}, or gate it by the accuracy",
        seen.tickets(lambda group: group.has_signal),
        against,
    )


@detector(1)
def reward_dominance(seen: Seen, table: Monitor) -> Found | None:
    """Who wins in a group is decided by a reward that is not the accuracy: its scale or its weight drowns the other."""
    follows = _components(seen, "with_reward")
    agrees = _components(seen, "with_accuracy")
    # The reward that decides about right and wrong agrees with the accuracy entirely.
    others = {name: value for name, value in follows.items() if agrees.get(name, 1.0) < 0.9}
    true = [value for name, value in follows.items() if agrees.get(name, 0.0) >= 0.9]
    if not others or not true or max(others.values()) - max(true) < table.dominance:
        return None
    name, value = max(others.items(), key=lambda item: item[1])
    return (
        f"who wins in a group is decided by {name} (correlation with the reward {value:.2f}; of the accuracy "
        f"{max(true):.2f})",
        f'Lower the weight of {name}, or set objective.rewards = "normalise_then_sum": one scale for every reward',
        seen.tickets(lambda group: group.has_signal),
        {name: value, "accuracy": max(true)},
    )


@detector(1)
def best_of_bad(seen: Seen, table: Monitor) -> Found | None:
    """Most of what is reinforced is wrong: a completion that is better than its siblings need not be good."""
    found, rate = seen.mean("advantage/below_right"), seen.mean("groups/pass_rate")
    if len(seen.values("advantage/below_right")) < LEAST or not found > table.bad_credit:
        return None
    return (
        f"{found:.0%} of the positive advantage went to completions that are not right ({rate:.0%} are)",
        "What pays for being wrong? Look at partial rewards; gate them by the accuracy, or bring easier prompts",
        seen.tickets(lambda group: any(a > 0 and s < 0.5 for a, s in zip(group.advantages, group.accuracy))),
        {"below_right": found, "pass_rate": rate},
    )


@detector(1)
def format_only(seen: Seen, table: Monitor) -> Found | None:
    """The reward has risen, but not for being right: of several rewards only the one for form goes up."""
    rewards = {name: seen.mean(f"reward/{name}/mean") for name in _components(seen, "with_accuracy")}
    first, rate = seen.at_first("groups/pass_rate"), seen.mean("groups/pass_rate")
    if len(rewards) < 2 or len(seen.lines) < table.window or math.isnan(first) or rate - first > 0.02:
        return None
    rise = {name: value - seen.at_first(f"reward/{name}/mean") for name, value in rewards.items()}
    name, most = max(rise.items(), key=lambda item: item[1])
    if not most > 2 * table.gap or rate > 0.9 or seen.mean("reward/mean") <= seen.at_first("reward/mean"):
        return None
    return (
        f"the reward {name} rose by {most:.2f} while {rate:.0%} are right, as at first ({first:.0%})",
        f"Only the form is learnt: lower the weight of {name} once it is there, or gate it by the accuracy",
        (),
        {"rise": most, "pass_rate": rate},
    )
