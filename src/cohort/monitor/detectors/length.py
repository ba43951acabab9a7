"""Of lengths: cut off, paid by the token, or growing where answers are wrong."""

from __future__ import annotations

from cohort.monitor.detectors.finding import Found, Seen, detector
from cohort.settings.monitor import Monitor

CALM = 3
FEW_WRONG = 0.8  # right completions, from which on the wrong ones are the hard rest


@detector(1, of_groups=True)
def truncation(seen: Seen, table: Monitor) -> Found | None:
    """Completions are cut off at the limit, so what is scored is not what the policy would have said."""
    found = seen.values("completions/truncated", CALM)
    if len(found) < CALM or min(found) < table.truncated:
        return None
    return (
        f"{found[-1]:.0%} of the completions are cut off at rollout.max_tokens "
        f"(mean length {seen.mean('completions/mean_tokens', 1):.0f})",
        'Raise rollout.max_tokens; objective.truncated = "mask" leaves them out of the loss',
        seen.tickets(lambda group: all(one.finish == "length" for one in group.rollouts)),
        {"truncated": found[-1]},
    )


@detector(1)
def length_reward(seen: Seen, table: Monitor) -> Found | None:
    """Inside groups the reward goes with the length, up or down, and the length follows: it is the length that pays."""
    found, first = seen.mean("completions/length_correlation"), seen.at_first("completions/mean_tokens")
    if len(seen.values("completions/length_correlation")) < min(table.window, 5):
        return None
    now = seen.mean("completions/mean_tokens", CALM)
    follows = now > 1.3 * first if found > 0 else now < first / 1.3
    if abs(found) < table.length_correlation or not follows:
        return None
    return (
        f"reward and length agree inside groups ({found:+.2f}); the mean length went from {first:.0f} to {now:.0f}",
        "Read the best of a group: are they better, or longer? A length reward or rollout.max_tokens bounds it",
        seen.tickets(lambda group: group.has_signal),
        {"correlation": found, "first": first, "now": now},
    )


@detector(1)
def wrong_longer(seen: Seen, table: Monitor) -> Found | None:
    """Wrong answers grow faster than right ones: a loss that divides by the length of each completion punishes a long
    wrong answer less for each token (Dr. GRPO 2503.20783, section 3.1).
    """
    wrong, right = seen.mean("completions/wrong_tokens"), seen.mean("completions/right_tokens")
    at_first = seen.at_first("completions/wrong_tokens"), seen.at_first("completions/right_tokens")
    if not (at_first[0] > 0 and at_first[1] > 0 and right > 0):
        return None
    growth = (wrong / right) / (at_first[0] / at_first[1])
    if growth < table.longer_wrong or wrong < 1.3 * at_first[0] or seen.mean("groups/pass_rate") > FEW_WRONG:
        return None
    return (
        f"wrong answers have {wrong:.0f} tokens, {wrong / right:.1f} times right ones; at first {at_first[0]:.0f}, "
        f"{at_first[0] / at_first[1]:.1f} times",
        'Is objective.aggregation "sequence_mean"? "constant_length" (Dr. GRPO) and "token_mean" (DAPO) mend that',
        seen.tickets(lambda group: group.has_signal),
        {"wrong": wrong, "right": right, "growth": growth},
    )
