"""What was found of a benchmark in training prompts, as a table."""

from __future__ import annotations

from rich.markup import escape

from cohort.preflight.contamination.completion import Completed
from cohort.preflight.contamination.report import Report
from cohort.views.console import Console
from cohort.wording import counted, visible

SHOWN = 5  # examples


def show_contamination(console: Console, report: Report) -> None:
    """By layer how many questions were found, in how many prompts; examples; and what was not looked at."""
    sides = f"{counted(report.questions, 'question')}, against {counted(report.prompts, 'training prompt')}"
    console.say(f"\n  contamination: {escape(visible(report.benchmark))}, {sides}", fold=False)
    rows = [
        [
            f"[dim]{name}[/]" if not one.ids else f"{'[yellow]' if one.weak else '[red]'}{name}[/]",
            f"[dim]{one.what}{' (weak)' if one.weak else ''}[/]",
            f"{len(one.ids):,} of {one.looked_at:,}",
            f"{one.prompts:,}",
        ]
        for name, one in report.layers.items()
    ]
    console.table(["", "found when", "questions", "in prompts"], rows, left=2)
    shown = {
        f"{example.question} in {example.prompt}": example.shared
        for one in report.layers.values()
        for example in (() if one.weak else one.examples)
    }
    console.lines(dict(list(shown.items())[:SHOWN]), indent=4)
    for name, why in report.not_looked.items():
        console.marked("[yellow]note[/]", f"{name} not looked at: {why}")
    if report.flagged:
        of = f"{len(report.flagged):,} of {report.questions:,} questions"
        console.marked("[red]bad[/]", f"{of} are among the training prompts, in {len(report.found_in):,} of these")
    else:
        console.marked("[green]good[/]", "none of its questions was found by what was looked at, weak findings apart")


def show_completed(console: Console, benchmark: str, found: Completed | None) -> None:
    """Whether the base model finishes the questions of a benchmark."""
    if found is None:
        console.warn(f"{benchmark}: no question has 12 words, so none can be cut in halves for the model to finish")
        return
    known = len(found.verbatim)
    console.say(
        f"  the base model was given the first half of {found.questions} questions of {escape(visible(benchmark))}: it "
        f"writes {found.overlap:.1%} of the second half's 3-grams, {found.control:.1%} where the words of the first "
        f"half are shuffled (p {found.p:.2g}); {known} are known by heart"
    )
