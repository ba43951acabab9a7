"""Of the verifiers: whether they answer, and whether they answer the same twice."""

from __future__ import annotations

from cohort.monitor.behaviour import contradicts
from cohort.monitor.detectors.finding import Found, Seen, detector
from cohort.settings.monitor import Monitor


@detector(2, "critical", of_groups=True)
def verifier_contradiction(seen: Seen, table: Monitor) -> Found | None:
    """Equal completions of one prompt got different scores, or one that was scored twice (monitor.rescore) did: the
    verifier is not deterministic, and noise is learnt.
    """
    now = seen.values("groups/contradictions", 1)
    if not now or not now[0]:
        return None
    names = sorted({name for group in seen.groups for name in contradicts(group)})
    return (
        f"{now[0]:.0%} of the step's groups have a completion with different scores"
        f"{' from ' + ' and '.join(names) if names else ''}",
        "Is it a judge that samples (temperature 0 and a cache mend it), or a reward that looks at the whole group?",
        seen.tickets(lambda group: bool(contradicts(group))),
        {"contradictions": now[0]},
    )


@detector(1)
def verifier_errors(seen: Seen, table: Monitor) -> Found | None:
    """Groups are lost as they cannot be scored."""
    lost, sampled = sum(seen.values("groups/failed")), sum(seen.values("groups/sampled"))
    if not sampled or lost < 2 or lost / sampled < table.errors:
        return None
    names = [name for name in seen.now if name.startswith("reward/") and name.endswith("/timeouts")]
    late = sum(sum(seen.values(name)) for name in names)
    return (
        f"{lost / sampled:.0%} of the last {sampled:.0f} groups could not be scored; {late:.0f} took too long",
        "rewards.log says why; reward.timeout_s is the limit of one call, run.failure_budget that of lost groups",
        (),
        {"lost": lost, "sampled": sampled, "timeouts": late},
    )
