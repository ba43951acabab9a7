"""Numbers of one or several runs over their steps, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cohort.evaluate.compare import Paired, paired
from cohort.monitor.names import SECTIONS, Metric, metric
from cohort.recipe import between, canonical
from cohort.settings import GROUPS, Stage
from cohort.settings.words import plain, shown
from cohort.types import UserError
from cohort.views.cards.reading import is_number
from cohort.views.dashboard import evaluation
from cohort.views.dashboard.evaluation import Problem
from cohort.views.dashboard.runs import RunFiles, StageFiles
from cohort.views.dashboard.trends import points, thinned
from cohort.wording import counted

POINTS = 2000  # of one curve
OWN = "Of this run"


def glossary(stages: Sequence[StageFiles]) -> dict[str, list[Metric]]:
    """The metrics that any of these stages has, by section."""
    there = {name for stage in stages for line in stage.lines for name, value in line.items() if is_number(value)}
    there.discard("step")
    found: dict[str, list[Metric]] = {section: [] for section in (*SECTIONS, OWN)}
    of = {known.name: section for section, all_of in SECTIONS.items() for known in all_of}
    for name in sorted(there):
        known = metric(name) or Metric(name, "", "A number of a stage, reward or tracker of one's own.")
        found[of.get(known.name, OWN)].append(replace(known, name=name))
    return {section: names for section, names in found.items() if names}


def series(runs: Sequence[tuple[RunFiles, StageFiles]], name: str) -> list[dict[str, Any]]:
    """The curve of each run that has this number, for the page: runs of one family differ by their seed alone."""
    found = []
    for run, stage in runs:
        steps, values = points(stage.lines, name)
        if steps:
            x, y = thinned(steps, values, POINTS)
            found.append({"run": run.name, "family": family(run), "x": x, "y": y})
    return found


def family(run: RunFiles) -> str:
    """What runs that differ in nothing but the seed have in common."""
    return str(hash(str(canonical(run.recipe)["stages"]))) if run.recipe is not None else run.name


# --- two runs


Explain = Callable[
    [Stage, Stage], list[tuple[str, Any, Any, str]]
]  # what of two objectives differs, and the consequence


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that two recipes do not share, and what that changes."""

    key: str
    here: str
    there: str
    consequence: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs side by side."""

    differences: tuple[Difference, ...]
    paired: Paired | None
    way: str
    problems: tuple[Problem, ...]  # answered otherwise: `before` is the first run, `after` the second
    why: str
    others: tuple[str, ...]  # what their other stages do not share, in words


def comparison(
    first: tuple[RunFiles, StageFiles], second: tuple[RunFiles, StageFiles], explain: Explain | None = None
) -> Comparison:
    """How two runs differ: recipes, and the answers to the problems that both were evaluated on. `explain` says of two
    stages what differs of their objectives and with which consequence.
    """
    rows, others = tuple(_recipes(first, second, explain)), tuple(_others(first, second))
    ways = [way for way in evaluation.ways_of(first[1]) if way in evaluation.ways_of(second[1])]
    if not ways:
        return Comparison(rows, None, "", (), "They have no evaluation in common whose answers were kept.", others)
    way, found = ways[0], []
    for stage in (first[1], second[1]):
        steps = [shard.step for shard in stage.evaluated if shard.way == way]
        last = stage.kept if stage.kept in steps else steps[-1]
        found.append(evaluation.answers(stage.shard(last, way).path, stage.run.traces))
    ours, theirs = found
    both = [key for key in ours if key in theirs]
    if not both:
        return Comparison(rows, None, way, (), "They were evaluated on different problems.", others)
    judged = paired({key: theirs[key][2].rate for key in both}, {key: ours[key][2].rate for key in both})
    problems = [
        Problem(key, ours[key][0], ours[key][1], ours[key][2], theirs[key][2],
            evaluation.changed(ours[key][2].rate, theirs[key][2].rate))
        for key in both
        if ours[key][2].rate != theirs[key][2].rate
    ]  # fmt: skip
    order = list(evaluation.CHANGES)
    problems.sort(key=lambda one: order.index(one.change))
    return Comparison(rows, judged, way, tuple(problems), "", others)


def _recipes(
    first: tuple[RunFiles, StageFiles], second: tuple[RunFiles, StageFiles], explain: Explain | None
) -> list[Difference]:
    (run, stage), (other, their) = first, second
    if run.recipe is None or other.recipe is None or stage.table is None or their.table is None:
        return []
    found: dict[str, Difference] = {}
    if explain and stage.kind in GROUPS and their.kind in GROUPS:
        try:
            for key, here, there, why in explain(stage.table, their.table):
                found[key] = Difference(key, _said(here), _said(there), why)
        except UserError:
            found = {}
    seeds = [("seed", run.recipe.seed, other.recipe.seed)] if run.recipe.seed != other.recipe.seed else []
    for path, here, there in (*seeds, *between(stage.table, their.table)):
        if path.removeprefix("objective.") not in found and path not in found:
            found[path] = Difference(path, _said(here), _said(there), "")
    return sorted(found.values(), key=lambda one: not one.consequence)


def _others(first: tuple[RunFiles, StageFiles], second: tuple[RunFiles, StageFiles]) -> list[str]:
    """Of stages that one name calls in both runs, how many values differ; and the stages that one of them lacks."""
    (run, here), (other, there) = first, second
    alone: dict[str, list[str]] = {}
    mine, theirs = ({one.name: one.table for one in of.stages} for of in (run, other))
    found = []
    for name in dict.fromkeys((*mine, *theirs)):
        a, b = mine.get(name), theirs.get(name)
        if name == here.name == there.name:
            continue
        if a is None or b is None:
            if name not in (here.name, there.name):
                alone.setdefault(run.name if b is None else other.name, []).append(name)
        elif rows := between(a, b):
            keys = ", ".join(path for path, _, _ in rows[:3])
            found.append(f"Stage {name} differs in {counted(len(rows), 'value')}: {keys}{', ...' * (len(rows) > 3)}.")
    for of, names in alone.items():
        found.append(f"{of} alone has {'stage' if len(names) == 1 else 'stages'} {', '.join(names)}.")
    return found


def _said(value: Any) -> str:
    return shown(plain(value))


def together(runs: Sequence[RunFiles], wanted: StageFiles | None = None) -> list[tuple[RunFiles, StageFiles]]:
    """Every run with the stage that is like the wanted one, by default like that of the first run to look at first: of
    the same name, else the last of its kind, else the one to look at first.
    """
    wanted = wanted or runs[0].stages[runs[0].latest]
    found = []
    for run in runs:
        alike = [one for one in run.stages if one.name == wanted.name]
        alike = alike or [one for one in run.stages if one.kind == wanted.kind][-1:]
        found.append((run, wanted if run is wanted.run else (alike or [run.stages[run.latest]])[0]))
    return found
