"""The first screen: whether it worked and why, in sentences that are computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cohort.monitor.detectors.finding import Finding
from cohort.monitor.doctor import Cause, answers, causes
from cohort.recipe import against_defaults
from cohort.record.metrics import object_in
from cohort.settings import GROUPS
from cohort.settings.words import plain, shown
from cohort.views.cards.reading import amount, percent, seconds
from cohort.views.dashboard import evaluation
from cohort.views.dashboard.history import example
from cohort.views.dashboard.runs import RunFiles, StageFiles, State
from cohort.views.dashboard.story import what_was_trained
from cohort.views.dashboard.trends import Trend, curated, ends, points

Tone = Literal["good", "bad", "unsure", "none"]
_LESS = ("run.", "monitor.", "evaluate.", "record.")  # what decides less of a result than the rest


@dataclass(frozen=True, slots=True)
class Verdict:
    """Did it work? `headline` is the answer, `sentences` are why."""

    tone: Tone
    headline: str
    sentences: tuple[str, ...] = ()
    measure: str = ""
    before: float | None = None
    after: float | None = None
    low: float | None = None  # of the interval of the difference
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Fact:
    """A number with what it is."""

    value: str
    what: str
    more: str = ""


@dataclass(frozen=True, slots=True)
class Alarm:
    """What one detector said over a run."""

    detector: str
    severity: str
    first: int
    last: int
    times: int
    line: str
    look_at: str
    tickets: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """A value of the recipe that is not the default."""

    key: str
    here: str
    default: str
    minor: bool


@dataclass(frozen=True, slots=True)
class StageLine:
    """A stage in the list of all."""

    number: int
    name: str
    kind: str
    steps: int
    planned: int | None
    before: float | None
    after: float | None
    difference: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class Reading:
    """A place worth reading, and why."""

    screen: str
    query: Mapping[str, Any]
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that the first screen shows."""

    name: str
    what: tuple[str, ...]  # what was trained, in sentences
    example: Mapping[str, Any] | None  # a prompt and its gold answer
    state: State
    verdict: Verdict
    facts: tuple[Fact, ...]
    trends: tuple[Trend, ...]
    evaluations: tuple[Mapping[str, Any], ...]
    alarms: tuple[Alarm, ...]
    causes: tuple[Cause, ...]
    questions: tuple[tuple[str, str], ...]
    settings: tuple[Setting, ...]
    stages: tuple[StageLine, ...]
    spent: tuple[tuple[str, float], ...]  # tokens by what became of them
    reading: tuple[Reading, ...]
    problems: tuple[str, ...]


def overview(run: RunFiles, stage: StageFiles) -> Overview:
    """The first screen of a stage."""
    steps, findings = stage.steps, stage.findings
    found = causes(findings, stage.table) if stage.table is not None else []
    return Overview(
        name=run.name,
        what=tuple(what_was_trained(run, stage)),
        example=example(stage),
        state=run.state,
        verdict=verdict(stage),
        facts=tuple(facts(stage)),
        trends=tuple(curated(stage.lines)),
        evaluations=tuple(stage.evaluations),
        alarms=tuple(alarms(findings)),
        causes=tuple(found),
        questions=tuple(answers(steps)) if stage.kind in GROUPS else (),
        settings=tuple(settings(run, stage)),
        stages=tuple(_line(i, one) for i, one in enumerate(run.stages)) if len(run.stages) > 1 else (),
        spent=tuple(spent(stage)),
        reading=tuple(reading(stage)),
        problems=tuple(run.problems),
    )


def verdict(stage: StageFiles) -> Verdict:
    """Whether held-out accuracy rose, by how much, how sure that is, and whether it is the reward or the truth."""
    if stage.kind == "reject":
        return _kept(stage)
    reward = _change(stage, "reward/mean")
    for way, name in (("greedy", "greedy"), ("sampled", "pass@1"), ("", "accuracy")):  # noqa: B007
        lines = [line for line in stage.evaluations if isinstance(line.get(name), int | float)]
        if len(lines) > 1:
            break
    else:
        return _unmeasured(stage, reward)
    kept = stage.kept
    last = next((line for line in lines if line["step"] == kept), lines[-1])
    before, after = lines[0][name], last[name]
    found = evaluation.difference(stage, way) if way else None
    measure = {"greedy": "held-out accuracy, greedy", "pass@1": "held-out accuracy, sampled"}.get(name, "")
    if name == "accuracy":
        return _ranked(lines[0], last)
    if found is None:
        points_of = f"{100 * (after - before):+.1f} points"
        said = ("The answers were not kept, so how sure the difference is cannot be said.",)
        return Verdict("unsure", f"{measure[0].upper()}{measure[1:]}: {points_of}", said, measure, before, after)
    of = f"{100 * found.mean:+.1f} points"
    judged: dict[str, tuple[str, Tone]] = {
        "improved": (f"It improved: {of}", "good"),
        "regressed": (f"It got worse: {of}", "bad"),
        "non_inferior": (f"No improvement is shown: {of}", "unsure"),
        "inconclusive": (f"Nothing is certain: {of}", "unsure"),
    }
    headline, tone = judged[found.verdict]
    why = [
        f"Over {found.problems:,} problems that it never trained on, paired: {found.better:,} are answered better and "
        f"{found.worse:,} worse than before. The interval is 95%.",
        _truth(found.verdict, reward),
    ]
    if kept is not None and kept != lines[-1]["step"]:
        why.append(f"The weights of step {kept:,} are kept, the best by held-out problems.")
    return Verdict(tone, headline, tuple(filter(None, why)), measure, before, after, found.low, found.high)


def _ranked(first: Mapping[str, Any], last: Mapping[str, Any]) -> Verdict:
    """What a reward model came to: two intervals, as its answers to single pairs are not kept."""
    before, after = first["accuracy"], last["accuracy"]
    ends = [one[key] for one in (first, last) for key in ("accuracy_low", "accuracy_high") if one.get(key) is not None]
    tone: Tone = "unsure"
    said = ["A score that guesses ranks half of the pairs right."]
    if len(ends) == 4:
        apart = ends[2] > ends[1] or ends[3] < ends[0]
        tone = "unsure" if not apart else "good" if after > before else "bad"
        was, now = (f"{percent(low)} to {percent(high)}" for low, high in (ends[:2], ends[2:]))
        said.append(f"The 95% intervals are {was} before and {now} now: they {'do not ' * apart}overlap.")
    headline = f"It ranks {percent(after)} of the held-out pairs right"
    return Verdict(tone, headline, tuple(said), "held-out pairs ranked right", before, after)


def _kept(stage: StageFiles) -> Verdict:
    """What a stage that only chooses has chosen."""
    found = object_in(stage.place / "final/selection.json")
    kept, sampled, refused = (found.get(name) for name in ("kept", "sampled", "refused"))
    if not (isinstance(kept, int) and isinstance(sampled, int) and isinstance(refused, dict)):
        return Verdict("none", "It chooses answers for a later stage")
    why = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in refused.items() if isinstance(count, int))
    said = (f"Left out: {why or 'none'}.", "Nothing was trained here, so there is no before and after.")
    return Verdict("none", f"{kept:,} of {sampled:,} answers were kept", said)


def _change(stage: StageFiles, name: str) -> tuple[float, float, bool] | None:
    """Early and late mean of a number, and whether they differ by more than noise."""
    _, values = points(stage.steps, name)
    if len(values) < 2:
        return None
    early, late, noise = ends(values)
    return early, late, abs(late - early) > noise


def _truth(found: str, reward: tuple[float, float, bool] | None) -> str:
    """Is it the reward or the truth?"""
    if reward is None:
        return ""
    early, late, sure = reward
    moved = f"from {early:.3f} to {late:.3f}"
    rose = sure and late > early
    if found == "improved" and rose:
        return f"The reward rose with it, {moved}: what is paid is what is wanted."
    if found == "improved":
        return f"The reward did not rise by more than its noise ({moved})."
    if rose:
        return f"The reward rose, {moved}, and held-out accuracy did not follow: read what is paid best."
    if sure:
        return f"The reward fell, {moved}."
    return f"The reward did not move by more than its noise ({moved})."


def _unmeasured(stage: StageFiles, reward: tuple[float, float, bool] | None) -> Verdict:
    if reward is None:
        name = next((n for n in ("loss", "pairs/accuracy", "scores/mean") if _change(stage, n)), None)
        change = _change(stage, name) if name else None
        if name is None or change is None:
            return Verdict("none", "There is nothing to judge yet")
        went = f"{name} went from {change[0]:.3f} to {change[1]:.3f}."
        return Verdict("none", "This stage was not evaluated", (went, *_after(stage)))
    early, late, sure = reward
    headline = "The reward rose" if sure and late > early else "The reward fell" if sure else "The reward did not move"
    said = (
        f"From {early:.3f} in the first steps to {late:.3f} in the last ones.",
        "Nothing was measured on held-out problems, so this says nothing of problems it has not seen "
        "(task.held_out, run.evaluate_every).",
    )
    return Verdict("unsure", headline, said)


def _after(stage: StageFiles) -> list[str]:
    """What the next stage found of a policy that was not evaluated itself."""
    for one in stage.run.stages[stage.run.stages.index(stage) + 1 :]:
        first = next((line for line in one.evaluations if line["step"] == 0 and "greedy" in line), None)
        if first is not None:
            return [f"Where stage {one.name} begins, {percent(first['greedy'])} of the held-out problems are right."]
    return []


def facts(stage: StageFiles) -> Iterator[Fact]:
    """Cost, and what was paid for nothing."""
    steps = stage.steps
    if not steps:
        return

    def total(name: str) -> float:
        return math.fsum(points(steps, name)[1])

    took, sampled, wasted = total("time/step_s"), total("tokens/sampled"), total("tokens/wasted")
    planned = f"of {stage.planned:,}" if stage.planned and stage.planned != steps[-1]["step"] else ""
    yield Fact(f"{steps[-1]['step']:,}", "steps", planned)
    yield Fact(seconds(took), "in steps", "evaluation apart")
    if sampled:
        yield Fact(amount(int(sampled)), "tokens sampled", f"{sampled / max(took, 1e-9):,.0f} a second")
    if spent(stage):
        more = f"{amount(int(wasted))} tokens nothing was learnt from"
        yield Fact(f"{wasted / sampled:.0%}", "paid for nothing", more)
    groups, signal = total("groups/sampled"), points(steps, "groups/signal")[1]
    if groups:
        mean = math.fsum(signal) / max(len(signal), 1)
        paid = bool(points(steps, "reward/mean")[1])  # by a reward, and not by a teacher alone
        yield Fact(f"{int(groups):,}", "groups", f"{mean:.0%} with signal" if paid else "")
    memory = points(steps, "memory/peak_gb")[1]
    if memory:
        yield Fact(f"{max(memory):.2f} GB", "memory at most")
    energy = total("energy/step_j") or total("energy/estimated_j")
    if energy:
        yield Fact(f"{energy / 3600:,.1f} Wh", "energy", "measured" if total("energy/step_j") else "estimated")


def spent(stage: StageFiles) -> list[tuple[str, float]]:
    """Sampled tokens by whether something was learnt from them."""
    if stage.kind == "reject":  # nothing is learnt there, and what is kept is not paid for in vain
        return []
    sampled = math.fsum(points(stage.steps, "tokens/sampled")[1])
    wasted = math.fsum(points(stage.steps, "tokens/wasted")[1])
    return [("learnt from", sampled - wasted), ("paid for nothing", wasted)] if sampled else []


EARLY = 2  # steps after the first one in which what it was before it learnt is still seen


def reading(stage: StageFiles) -> Iterator[Reading]:
    """Where a person who looks at samples before curves begins."""
    shards = [shard.step for shard in stage.shards]
    if shards:
        yield Reading("step", {"step": shards[0]}, f"The groups of step {shards[0]}", "what it could do before")
        if len(shards) > 1:
            yield Reading("step", {"step": shards[-1]}, f"The groups of step {shards[-1]}", "what it still gets wrong")
        if lengths := points(stage.steps, "completions/right_tokens")[1]:
            few = f"accuracy == 1 and length < {round(0.75 * lengths[-1])}"
            early, late = shards[: EARLY + 1][-1], shards[-EARLY:][0]
            where, why = f"{few} and step <= {early}", "are they worked out, or guessed and rewarded all the same?"
            yield Reading("search", {"where": where}, f"Short right answers until step {early}", why)
            if late > early:
                where, why = f"{few} and step >= {late}", "does the reward still pay for what it should not?"
                yield Reading("search", {"where": where}, f"The same since step {late}", why)
        if max(points(stage.steps, "advantage/below_right")[1], default=0.0) > 0:
            wrong = {"where": "accuracy == 0 and advantage > 0"}
            yield Reading("search", wrong, "Wrong answers that were pushed up", "paid for what?")
    if any(evaluation.pair_of(stage, way) for way in evaluation.ways_of(stage)):
        yield Reading("evaluation", {}, "Held-out problems, flips first", "what it learnt, and what it lost")


def alarms(findings: Sequence[Finding]) -> list[Alarm]:
    """A line for each detector that spoke, the worst first."""
    by_name: dict[str, list[Finding]] = {}
    for one in findings:
        by_name.setdefault(one.detector, []).append(one)
    found = [
        Alarm(
            name,
            "critical" if any(one.severity == "critical" for one in of) else "warning",
            of[0].step,
            of[-1].step,
            len(of),
            of[-1].line + "." + of[-1].done,
            of[-1].look_at,
            tuple((one.step, ticket) for one in of for ticket in one.tickets[:3])[:6],
        )
        for name, of in by_name.items()
    ]
    return sorted(found, key=lambda one: (one.severity != "critical", one.first))


def settings(run: RunFiles, stage: StageFiles) -> list[Setting]:
    """What of this stage differs from the defaults, what decides the result first."""
    if run.recipe is None:
        return []
    prefix = f"{stage.name}." if len(run.stages) > 1 else ""
    found = [
        Setting(path.removeprefix(prefix), _said(value), _said(default), path.removeprefix(prefix).startswith(_LESS))
        for path, default, value in against_defaults(run.recipe)
        if path.startswith(prefix)
    ]
    return sorted(found, key=lambda one: one.minor)


def _said(value: Any) -> str:
    return "none" if value is None else shown(plain(value))


def _line(number: int, stage: StageFiles) -> StageLine:
    judged = verdict(stage)
    steps = stage.steps
    difference = f"{100 * (judged.after - judged.before):+.1f}" if judged.low is not None and judged.after is not None \
        and judged.before is not None else ""  # fmt: skip
    return StageLine(
        number, stage.name, stage.kind, steps[-1]["step"] if steps else 0, stage.planned, judged.before, judged.after,
        difference, judged.tone,
    )  # fmt: skip
