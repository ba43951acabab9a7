"""`cohort compare`: a recipe beside its controls, trained from the same weights with the same budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from rich.markup import escape

from cohort.commands.evaluate import in_words
from cohort.machine import quiet_libraries
from cohort.recipe import Recipe
from cohort.record.files import write_bytes
from cohort.train.compare.arms import comparison, train_arms
from cohort.train.compare.outcome import Result, conclusion, results
from cohort.views.comparison import Bar, figure
from cohort.views.console import Console


@dataclass(frozen=True, slots=True)
class Compared:
    """Every arm, `measured` by greedy or sampled completions of so many held-out `problems`, and what it comes to."""

    recipe: str
    directory: Path
    measured: str
    problems: int
    seeds: tuple[int, ...]
    arms: list[Result]
    conclusion: str
    file: Path
    figure: Path | None


def run_comparison(recipe: Recipe, controls: Sequence[str], seeds: int) -> Compared:
    """Train the arms, or what is left of them, and write what held-out problems say beside their runs."""
    quiet_libraries()
    console, planned = Console(), comparison(recipe, controls, seeds)
    if planned.stage.name != recipe.stages[-1].name:
        console.warn(f"the stages after {planned.stage.name} are left out: no arm trains them")
    run = next(one.run for one in recipe.stages if one.name == planned.stage.name)
    if run.keep_best is not None or run.stop is not None:
        console.warn(
            "run.keep_best and run.stop are left out: every arm is trained to its last step, and compared there"
        )
    console.say(f"[dim]runs[/]  {escape(str(planned.directory))}; stopped, the same command goes on with them")
    train_arms(planned, console)
    measured, found = results(planned)
    for one in found:
        if not one.same_start:
            console.warn(
                f"{one.arm} did not begin as the recipe did: its model, data or machine were others; delete "
                f"{escape(str(planned.directory))} to begin anew"
            )
    bars = [Bar(one.arm, one.before.mean, one.after.mean, one.after.low, one.after.high) for one in found]
    drawn, picture = figure(bars, f"{recipe.name}, {measured}"), planned.directory / "compare.png"
    if drawn is not None:
        write_bytes(picture, drawn)
    compared = Compared(
        recipe=recipe.name,
        directory=planned.directory,
        measured=measured,
        problems=found[0].difference.problems // len(planned.seeds),
        seeds=planned.seeds,
        arms=found,
        conclusion=conclusion(found),
        file=planned.directory / "compare.json",
        figure=None if drawn is None else picture,
    )
    write_bytes(
        compared.file, orjson.dumps(compared, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
    )
    return compared


def show(console: Console, found: Compared) -> None:
    """A row for each arm; then the recipe minus each control, and the conclusion."""
    seeds = f" x {len(found.seeds)} seeds" if len(found.seeds) > 1 else ""
    console.say(f"\n  {found.problems} held-out problems{seeds}, {found.measured}, with 95% intervals")
    rows = [
        [
            one.arm,
            f"{one.before.mean:.1%}",
            f"{one.after.mean:.1%}",
            f"{one.difference.mean:+.1%} [{one.difference.low:+.1%}, {one.difference.high:+.1%}]",
            one.difference.verdict,
            f"{one.tokens_before:.0f} to {one.tokens_after:.0f}",
        ]
        for one in found.arms
    ]
    console.table(["", "before", "after", "change", "", "tokens"], rows)  # what 80 columns hold
    for one in found.arms:
        if one.behind is not None:
            console.say(escape(f"  recipe minus {one.arm}: {in_words(one.behind)}"))
    for one in found.arms if len(found.seeds) > 1 else ():
        each = ", ".join(f"{seed}: {change:+.1%}" for seed, change in one.by_seed.items())
        console.say(f"  {one.arm}, change by seed: {each}")
    console.say(f"  {found.conclusion}")
    console.saved("kept", found.file)
    if found.figure is not None:
        console.saved("figure", found.figure)
    else:
        console.say("  no figure: pip install 'cohort\\[plot]'")
