"""The gate's report: which of its findings are wrong enough to stop a run, and which are worth knowing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Sequence

from cohort.preflight.gate.findings import (
    GOLD,
    GateReport,
    RewardFindings,
    Seen,
    best_of,
    findings_of,
    is_right,
    mean,
    named,
    rows_of,
)
from cohort.preflight.gate.probes import CONSTANT, LISTED, OTHER_GOLD, Probe, alike
from cohort.rewards.calling.reward import Reward
from cohort.rewards.failure import GroupLost
from cohort.rewards.items import ScoredGroup
from cohort.types import RIGHT
from cohort.wording import shorten

__all__ = ["NO_GOLD", "summarise"]

NO_GOLD = (
    "there are no gold answers that a completion could state; evaluate.gold can name a column of right completions"
)
BY_CHANCE = (OTHER_GOLD, CONSTANT, LISTED)  # some of these are right now and then, or in part
WORTH_SAYING = 0.1  # of what gold answers get: less than that for an ignorant text is not worth a line
WORTH_SAYING_BY_CHANCE = 0.5


def summarise(
    rewards: Sequence[Reward],
    verifiers: Sequence[str],
    untested: Collection[str],
    seen: Sequence[Seen],
    twice: Sequence[tuple[ScoredGroup, ScoredGroup]],
    lost: Sequence[GroupLost],
    asked: int,
    seconds: float,
) -> GateReport:
    """The report of what was seen. `twice` are pairs of scorings of the same texts."""
    decided = {name: [one for one in seen if one.verifier == name] for name in verifiers}
    found = tuple(findings_of(reward.name, decided.get(reward.name, []), seen, twice) for reward in rewards)
    problems, notes = [], []
    if lost and not seen:
        problems.append(f"nothing could be scored: {lost[0]}")
    elif len(seen) < asked:
        why = f": {lost[0]}" if lost else f" in {seconds:.0f} s"
        notes.append(f"only {len(seen)} of {asked} prompts were scored{why}")
    with_gold = sum(one.gold is not None for one in seen)
    if seen and not with_gold:
        notes.append(NO_GOLD)
    if with_gold and not any(decided.values()) and not set(verifiers) <= set(untested):
        problems.append(f"{' or '.join(verifiers)} applies to none of the {with_gold} gold answers that were scored")
    for one in found:
        own = decided.get(one.name, [])
        if one.verifier and one.name in untested:
            notes.append(f"{one.name} does not look at the gold answer")
        elif one.verifier and (problem := _problem(one, own)):
            problems.append(problem)
        elif one.verifier:
            notes += _remarks(one, own)
        if not one.same_twice:
            notes.append(f"{one.name} gives other scores when it sees the same texts again")
    totals = rows_of([(one.probes, one.after.rewards) for one in seen])
    return GateReport(len(seen), seconds, found, totals, tuple(problems), tuple(notes))


def _problem(found: RewardFindings, own: Sequence[Seen]) -> str | None:
    """Why this verifier cannot be trusted at all, if so."""
    ignorant = rows_of([_ignorant(one, found.name) for one in own])
    kind, best = best_of(ignorant)
    best_of_all = math.isnan(best.mean) or found.gold > best.mean
    if best_of_all and _stands_out(found.name, own):
        return None
    wrong = next((one for one in own if not is_right(one, found.name)), None)
    example = f" For instance {shorten(wrong.gold)} for {shorten(wrong.prompt.question)} is not right." if wrong else ""
    return (
        f"{found.name} cannot tell gold answers (mean score {found.gold:.2f}) from texts that know nothing "
        f"({best.mean:.2f} for {named(kind, best.label)}), so it cannot say what is right.{example}"
    )


def _ignorant(one: Seen, name: str) -> tuple[list[Probe], list[float]]:
    """The texts that know nothing, and what they got. A constant that happens to be the gold answer is right."""
    pairs = [
        (probe, score)
        for probe, score in zip(one.probes, one.after.scores[name], strict=True)
        if probe.kind not in (GOLD, LISTED) and not (probe.kind == CONSTANT and alike(probe.label, one.gold))
    ]
    return [probe for probe, _ in pairs], [score for _, score in pairs]


def _stands_out(name: str, own: Sequence[Seen]) -> bool:
    """Whether gold answers score more than ignorant texts do on average, by two standard errors over the prompts."""
    ahead = []
    for one in own:
        gold = [score for probe, score in zip(one.probes, one.after.scores[name], strict=True) if probe.kind == GOLD]
        ahead.append(mean(gold, 0.0) - mean(_ignorant(one, name)[1], 0.0))
    if len(ahead) < 2:
        return True
    return statistics.fmean(ahead) > 2 * statistics.stdev(ahead) / math.sqrt(len(ahead))


def _remarks(found: RewardFindings, own: Sequence[Seen]) -> list[str]:
    """What a person should know of a verifier that passes."""
    remarks = []
    if found.gold_right < found.gold_asked:
        wrong = next(one for one in own if not is_right(one, found.name))
        remarks.append(
            f"{found.name}: {found.gold_asked - found.gold_right} of {found.gold_asked} gold answers score less than "
            f"{RIGHT:g} in every form, e.g. {shorten(wrong.gold)} for {shorten(wrong.prompt.question)}"
        )
    for kind, row in found.rows.items():
        limit = WORTH_SAYING_BY_CHANCE if kind in BY_CHANCE else WORTH_SAYING
        if kind != GOLD and found.gold > 0 and row.mean >= limit * found.gold:
            which = "lists the right answer among others" if kind == LISTED else "knows nothing"
            label = "" if kind == LISTED else f" ({named(kind, row.label)})"
            remarks.append(f"{found.name} pays {row.mean:.2f} for a text that {which}{label}")
    return remarks
