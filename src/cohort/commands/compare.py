"""`cohort compare`: a recipe beside its controls, by several methods or with several values of a key, trained from the
same weights with the same budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from cohort.commands.evaluate import in_words
from cohort.machine import quiet_libraries
from cohort.record.files import write_bytes
from cohort.train.compare.arms import Asked, Comparison, Reader, comparison
from cohort.train.compare.outcome import Point, Result, conclusion, results
from cohort.train.compare.running import train_arms
from cohort.views.comparison import Bar, figure
from cohort.views.console import Console, escape

UNITS = {"steps": "steps", "tokens": "sampled tokens", "seconds": "seconds of training"}


@dataclass(frozen=True, slots=True)
class Compared:
    """Every arm, `measured` by greedy or sampled completions of so many held-out `problems`, and what it comes to."""

    recipe: str
    directory: Path
    budget: str
    measured: str
    problems: int
    seeds: tuple[int, ...]
    arms: list[Result]
    conclusion: str
    file: Path
    figure: Path | None
    controls: bool


def run_comparison(read: Reader, asked: Asked, jobs: int = 1) -> Compared:
    """Train the arms that are not finished, and write their held-out results into a file beside their runs."""
    quiet_libraries()
    console, planned = Console(), comparison(read, asked)
    recipe = planned.recipe
    compared_stage = next(one for one in recipe.stages if one.name == planned.stage.name)
    if compared_stage is not recipe.stages[-1]:
        console.warn(f"the stages after {compared_stage.name} are left out: no arm trains them")
    if compared_stage.run.keep_best is not None or compared_stage.run.stop is not None:
        console.warn(
            "run.keep_best and run.stop are left out: every arm is trained to its last step, and compared there"
        )
    if planned.budget != "steps":
        console.warn(
            f"every arm stops when it has used the {UNITS[planned.budget]} of {planned.base.label}; the learning rate "
            "of all is constant, as none knows its last step"
        )
    console.say(f"[dim]runs[/]  {escape(str(planned.directory))}; stopped, the same command goes on with them")
    train_arms(planned, console, jobs)
    measured, found = results(planned)
    for one in found:
        if not one.same_start:
            console.warn(
                f"{one.arm} did not begin as {planned.base.label} did: its model, data or machine were others; delete "
                f"{escape(str(planned.directory))} to begin anew"
            )
    picture = _drawn(planned, found, measured)
    compared = Compared(
        recipe=recipe.name,
        directory=planned.directory,
        budget=planned.budget,
        measured=measured,
        problems=found[0].difference.problems // len(planned.seeds),
        seeds=planned.seeds,
        arms=found,
        conclusion=conclusion(planned, found),
        file=planned.directory / "compare.json",
        figure=picture,
        controls=planned.controls,
    )
    write_bytes(
        compared.file, orjson.dumps(compared, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
    )
    return compared


def _drawn(planned: Comparison, found: Sequence[Result], measured: str) -> Path | None:
    def place(point: Point) -> float:
        return {"steps": point.step, "tokens": point.tokens, "seconds": point.seconds}[planned.budget]

    bars = [
        Bar(
            one.arm, one.before.mean, one.after.mean, one.after.low, one.after.high,
            [(place(point), point.mean, point.low, point.high) for point in one.curve],
        )
        for one in found
    ]  # fmt: skip
    drawn = figure(bars, f"{planned.recipe.name}, {measured}", UNITS[planned.budget])
    if drawn is None:
        return None
    picture = planned.directory / "compare.png"
    write_bytes(picture, drawn)
    return picture


def show(console: Console, found: Compared) -> None:
    """A row for each arm; then the first arm minus each other, what differs, and the conclusion."""
    seeds = f" x {len(found.seeds)} seeds" if len(found.seeds) > 1 else ""
    console.say(f"\n  {found.problems} held-out problems{seeds}, {found.measured}, with 95% intervals")
    headings = ["", "before", "after", "change", "", "tokens"]
    if not found.controls:
        console.say(f"  all begin at {found.arms[0].before.mean:.1%}")
        headings = ["", "after", "change", "", "steps", "sampled", "s/step", "GB", "lost"]
    rows = [
        [
            escape(one.arm),
            *([f"{one.before.mean:.1%}"] if found.controls else []),
            f"{one.after.mean:.1%}",
            f"{one.difference.mean:+.1%} [{one.difference.low:+.1%}, {one.difference.high:+.1%}]",
            one.difference.verdict,
            *([f"{one.tokens_before:.0f} to {one.tokens_after:.0f}"] if found.controls else _costs(one)),
        ]
        for one in found.arms
    ]
    console.table(headings, rows)
    base = "recipe" if found.controls else found.arms[0].arm
    for one in found.arms:
        if one.behind is not None:
            console.say(escape(f"  {base} minus {one.arm}: {in_words(one.behind)}"))
    for one in found.arms if len(found.seeds) > 1 else ():
        each = ", ".join(f"{seed}: {change:+.1%}" for seed, change in one.by_seed.items())
        console.say(escape(f"  {one.arm}, change by seed: {each}"))
    for one in found.arms if not found.controls else ():
        if one.differs:
            values = ", ".join(f"{key} = {value}" for key, value in one.differs.items())
            console.say(escape(f"  {one.arm} differs in {values}"))
    console.say(f"  {escape(found.conclusion)}")
    console.saved("kept", found.file)
    if found.figure is not None:
        console.saved("figure", found.figure)
    else:
        console.say("  no figure: pip install 'cohort\\[plot]'")


def _costs(one: Result) -> list[str]:
    memory = "" if one.memory_gb is None else f"{one.memory_gb:.2f}"
    tokens = f"{one.tokens_sampled / 1e6:.2f}M" if one.tokens_sampled >= 1e5 else f"{one.tokens_sampled:.0f}"
    return [f"{one.steps:.0f}", tokens, f"{one.step_seconds:.2f}", memory, f"{len(one.collapsed)} of {len(one.runs)}"]
