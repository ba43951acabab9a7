"""What the gate found about each reward: what it pays for each kind of text, whether twice the same, and how fast; and
which of that is wrong enough to stop a run, or worth knowing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from cohort.preflight.gate.probes import CONSTANT, LISTED, OPENER, OTHER_GOLD, Probe, alike
from cohort.rewards.calling.reward import Reward
from cohort.rewards.failure import GroupLost
from cohort.rewards.items import ScoredGroup
from cohort.rewards.marks import is_costly
from cohort.types import RIGHT, Prompt
from cohort.wording import shorten

GOLD = "gold answer"
NO_GOLD = (
    "there are no gold answers that a completion could state; evaluate.gold can name a column of right completions"
)
BY_CHANCE = (OTHER_GOLD, CONSTANT, LISTED)  # some of these are right now and then, or in part
WORTH_SAYING = 0.1  # of what gold answers get: less than that for an ignorant text is not worth a line
WORTH_SAYING_BY_CHANCE = 0.5

Scored = list[tuple[Probe, float]]  # texts, and what they got


@dataclass(frozen=True, slots=True)
class Seen:
    """What the rewards gave for one prompt: for its gold answer in several forms (`before`), and for all the probes
    (`after`). `verifier` decides about it (None: nothing does).
    """

    prompt: Prompt
    gold: str | None
    verifier: str | None
    probes: tuple[Probe, ...]
    before: ScoredGroup | None
    after: ScoredGroup

    def scored(self, name: str) -> Scored:
        """Every probe with what the reward `name` gave for it."""
        return list(zip(self.probes, self.after.scores[name], strict=True))


@dataclass(frozen=True, slots=True)
class Finding:
    """The mean score of one kind of text. Of several texts of a kind it is the one with the highest mean, called
    `label` (NaN: the reward gave a score to less than half of them).
    """

    mean: float
    label: str


@dataclass(frozen=True, slots=True)
class RewardFindings:
    """What one reward pays. A `verifier` is measured on the prompts that it decides about, any other reward on all.
    `paid`: it has a weight, so that the policy learns what it pays.

    `gold_right` of `gold_asked` gold answers were right in some form. `first_s` is what the first group took, loading
    included, `mean_s` and `p95_s` what a completion takes after that.
    """

    name: str
    verifier: bool
    paid: bool
    rows: Mapping[str, Finding]
    gold_right: int
    gold_asked: int
    same_twice: bool
    first_s: float
    mean_s: float
    p95_s: float

    @property
    def gold(self) -> float:
        """The mean score of gold answers, in the form that the verifier reads."""
        return self.rows[GOLD].mean if GOLD in self.rows else math.nan

    @property
    def best_ignorant(self) -> tuple[str, Finding]:
        """The kind and the label of the text without knowledge that gets most (NaN: none gets a score)."""
        return _best_of({kind: row for kind, row in self.rows.items() if kind not in (GOLD, LISTED)})

    def sentence(self) -> str:
        """What it pays, in a line."""
        kind, best = self.best_ignorant
        gold = "" if math.isnan(self.gold) else f"gold answers score {self.gold:.2f}, "
        if math.isnan(best.mean):
            return f"{self.name}: {gold}ignorant texts get no score"
        which = f" ({_named(kind, best.label)})" if best.mean > 0 else ""
        return f"{self.name}: {gold}the best ignorant text {best.mean:.2f}{which}"


@dataclass(frozen=True, slots=True)
class GateReport:
    """`problems` stop a run, `notes` do not. `total` is what a completion would be paid by all rewards together;
    `beside` a line for each reward that was not examined like the others.
    """

    prompts: int
    seconds: float
    rewards: tuple[RewardFindings, ...]
    total: Mapping[str, Finding]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    beside: tuple[str, ...] = ()

    @property
    def tested(self) -> tuple[RewardFindings, ...]:
        """The verifiers that were put to the test with gold answers."""
        return tuple(found for found in self.rewards if found.verifier and found.gold_asked)

    def sentence(self) -> str:
        """The result in a line."""
        if self.problems:
            return self.problems[0]
        if not self.tested:
            how = "only tasted" if self.prompts and not self.rewards else "nothing was tested"
            return how + (f": {self.notes[0]}" if self.notes else "")
        return "; ".join(found.sentence() for found in self.tested)

    def paid_beside(self) -> list[str]:
        """A line for each reward that is paid and not put to the test."""
        examined = [found for found in self.rewards if found.paid and not found.verifier]
        return [f"{found.sentence()} (paid, not put to the test)" for found in examined] + [*self.beside]

    def to_dict(self) -> dict[str, Any]:
        """The whole report as plain values for JSON; NaN becomes None."""
        verdict = "refused" if self.problems else "passed" if self.tested else "untested"
        return {"verdict": verdict, **orjson.loads(orjson.dumps(self))}  # which writes NaN as null


def _best_of(rows: Mapping[str, Finding]) -> tuple[str, Finding]:
    """The row with the highest mean (NaN: there is none)."""
    known = [(kind, row) for kind, row in rows.items() if not math.isnan(row.mean)]
    return max(known, key=lambda pair: pair[1].mean, default=("", Finding(math.nan, "")))


def _named(kind: str, label: str) -> str:
    """`always '2'`, `the opener 'Solution'`, `junk, letters`: a text as a sentence names it."""
    if kind == CONSTANT:
        return f"always {shorten(label)}"
    if kind == OPENER:
        return f"the opener {shorten(label)}"
    return f"{kind}, {label}" if label else kind


def mean(values: Iterable[float], otherwise: float = math.nan) -> float:
    """The mean of the values that apply (are not NaN); `otherwise` where none does."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else otherwise


def _is_right(one: Seen, name: str) -> bool:
    """Whether the gold answer is right in some form."""
    return one.before is not None and any(score >= RIGHT for score in one.before.scores[name])


def _rows_of(scored: Iterable[Scored]) -> dict[str, Finding]:
    """For each kind of text the label with the highest mean over the prompts to which the reward applies at all, the
    first of equals. Gold answers are one text a prompt, whatever their forms.
    """
    scores: dict[str, dict[str, list[float]]] = {}
    forms: dict[str, None] = {}
    for texts in scored:
        if all(math.isnan(score) for _, score in texts):
            continue
        for probe, score in texts:
            label = probe.label
            if probe.kind == GOLD:
                forms[label], label = None, ""
            scores.setdefault(probe.kind, {}).setdefault(label, []).append(score)
    rows = {}
    for kind, by_label in scores.items():
        means = {label: _mean_of_most(values) for label, values in by_label.items()}
        best = max(means, key=lambda label: -math.inf if math.isnan(means[label]) else means[label])
        rows[kind] = Finding(means[best], ", ".join(forms) if kind == GOLD else best)
    return rows


def _mean_of_most(values: Sequence[float]) -> float:
    """The mean, or NaN where less than half of the values are scores: one lucky hit among many `None` says nothing."""
    known = sum(not math.isnan(value) for value in values)
    return mean(values) if 2 * known >= len(values) else math.nan


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
    """The report of what was seen. `twice` are pairs of scorings of the same texts. A reward is measured on the prompts
    about which it decides; on all prompts where it decides about none.
    """
    problems, notes = _of_all(verifiers, untested, seen, lost, asked, seconds)
    first = next((one.before or one.after for one in seen), None)
    found = []
    for reward in rewards:
        name, asks = reward.name, is_costly(reward.function)  # asks: a model that judges
        own = [one for one in seen if one.verifier == name]
        with_gold = [one for one in own if one.gold is not None and name not in untested]
        each = sorted(one.after.seconds[name] / len(one.probes) for one in seen)
        one = RewardFindings(
            name=name,
            verifier=bool(own),
            paid=reward.weight != 0,
            rows=_rows_of(one.scored(name) for one in own or seen),
            gold_right=sum(_is_right(one, name) for one in with_gold),
            gold_asked=len(with_gold),
            same_twice=all(repr(a.scores[name]) == repr(b.scores[name]) for a, b in twice),  # repr: NaN equals itself
            first_s=first.seconds[name] if first else math.nan,
            mean_s=mean(each),
            p95_s=each[math.ceil(0.95 * len(each)) - 1] if each else math.nan,
        )
        found.append(one)
        if own and name in untested:
            notes.append(f"{name} does not look at the gold answer")
        elif own and (problem := _problem(one, own)):
            hint = " Where a right completion is more than its answer, evaluate.gold names a column of them." * asks
            problems.append(problem + hint)
        elif own:
            notes += _remarks(one, own)
        alike = _always(name, seen)
        if alike is not None and not (own and name not in untested):
            bad = alike > 0 and (asks or "answer" in (*reward.parameters.required, *reward.parameters.optional))
            (problems if bad else notes).append(f"{name} pays {alike:.2f} for every text, so it says nothing")
        if not one.same_twice:
            notes.append(f"{name} gives other scores when it sees the same texts again")
    if seen and not problems and not any(one.rows for one in found):
        names = " and ".join(reward.name for reward in rewards)
        problems.append(f"{names} gave no score for any text, only None, so nothing would be learnt")
    totals = _rows_of(list(zip(one.probes, one.after.rewards, strict=True)) for one in seen)
    return GateReport(len(seen), seconds, tuple(found), totals, tuple(problems), tuple(notes))


def _of_all(
    verifiers: Sequence[str],
    untested: Collection[str],
    seen: Sequence[Seen],
    lost: Sequence[GroupLost],
    asked: int,
    seconds: float,
) -> tuple[list[str], list[str]]:
    """Problems and notes that are about no single reward."""
    problems, notes = [], []
    if lost and not seen:
        problems.append(f"nothing could be scored: {lost[0]}")
    elif len(seen) < asked:
        why = f": {lost[0]}" if lost else f" in {seconds:.0f} s"
        notes.append(f"only {len(seen)} of {asked} prompts were scored{why}")
    with_gold = sum(one.gold is not None for one in seen)
    if seen and not with_gold:
        notes.append(NO_GOLD)
    if with_gold and all(one.verifier is None for one in seen) and not set(verifiers) <= set(untested):
        problems.append(f"{' or '.join(verifiers)} applies to none of the {with_gold} gold answers that were scored")
    return problems, notes


def _problem(found: RewardFindings, own: Sequence[Seen]) -> str | None:
    """Why this verifier cannot be trusted at all, if so."""
    ignorant = _rows_of(_ignorant(one, found.name) for one in own)
    kind, best = _best_of(ignorant)
    best_of_all = math.isnan(best.mean) or found.gold > best.mean
    if best_of_all and _stands_out(found.name, own):
        return None
    wrong = next((one for one in own if not _is_right(one, found.name)), None)
    example = f" For instance {shorten(wrong.gold)} for {shorten(wrong.prompt.question)} is not right." if wrong else ""
    return (
        f"{found.name} cannot tell gold answers (mean score {found.gold:.2f}) from texts that know nothing "
        f"({best.mean:.2f} for {_named(kind, best.label)}), so it cannot say what is right.{example}"
    )


def _always(name: str, seen: Sequence[Seen]) -> float | None:
    """The score that the reward gives to every text of every prompt that is not blank, in all forms of gold answers as
    well. None: there is no such score.
    """
    scores = [score for one in seen for probe, score in one.scored(name) if probe.text.strip()]
    scores += [score for one in seen if one.before is not None for score in one.before.scores[name]]
    return scores[0] if scores and all(score == scores[0] for score in scores) else None


def _ignorant(one: Seen, name: str) -> Scored:
    """The texts that know nothing, and what they got. A constant that happens to be the gold answer is right."""
    return [
        (probe, score)
        for probe, score in one.scored(name)
        if probe.kind not in (GOLD, LISTED) and not (probe.kind == CONSTANT and alike(probe.label, one.gold))
    ]


def _stands_out(name: str, own: Sequence[Seen]) -> bool:
    """Whether gold answers score more than ignorant texts do on average, by two standard errors over the prompts."""
    ahead = []
    for one in own:
        gold = mean((score for probe, score in one.scored(name) if probe.kind == GOLD), 0.0)
        ahead.append(gold - mean((score for _, score in _ignorant(one, name)), 0.0))
    if len(ahead) < 2:
        return True
    return statistics.fmean(ahead) > 2 * statistics.stdev(ahead) / math.sqrt(len(ahead))


def _remarks(found: RewardFindings, own: Sequence[Seen]) -> list[str]:
    """What a person should know of a verifier that passes."""
    remarks = []
    if found.gold_right < found.gold_asked:
        wrong = next(one for one in own if not _is_right(one, found.name))
        remarks.append(
            f"{found.name}: {found.gold_asked - found.gold_right} of {found.gold_asked} gold answers score less than "
            f"{RIGHT:g} in every form, e.g. {shorten(wrong.gold)} for {shorten(wrong.prompt.question)}"
        )
    for kind, row in found.rows.items():
        limit = WORTH_SAYING_BY_CHANCE if kind in BY_CHANCE else WORTH_SAYING
        if kind != GOLD and found.gold > 0 and row.mean >= limit * found.gold:
            which = "lists the right answer among others" if kind == LISTED else "knows nothing"
            label = "" if kind == LISTED else f" ({_named(kind, row.label)})"
            remarks.append(f"{found.name} pays {row.mean:.2f} for a text that {which}{label}")
    return remarks
