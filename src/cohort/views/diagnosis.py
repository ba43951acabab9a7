"""What detectors have found, at the end of a run and in `cohort diagnose`."""

from __future__ import annotations

from collections.abc import Sequence

from cohort.monitor.detectors.finding import Finding
from cohort.monitor.doctor import Cause, causes, paragraph
from cohort.settings import Stage
from cohort.views.console import Console


def summary(findings: Sequence[Finding]) -> list[str]:
    """A line for each detector that spoke: from which step to which, and what it said last."""
    by_name: dict[str, list[Finding]] = {}
    for one in findings:
        by_name.setdefault(one.detector, []).append(one)
    return [
        (f"step {of[0].step}" if len(of) == 1 else f"steps {of[0].step} to {of[-1].step}")
        + f", {name}: {of[-1].line}.{of[-1].done} {of[-1].look_at}"
        for name, of in by_name.items()
    ]


def show_findings(console: Console, findings: Sequence[Finding], stage: Stage) -> None:
    """The findings of a stage again, at its end, but for those that are only logged; and what it comes to."""
    said = [one for one in findings if stage.monitor.action_of(one.detector) != "log"]
    for line in summary(said):
        console.warn(line)
    if any(one.severity == "critical" for one in said) and (likely := causes(said, stage)):
        console.warn(f"{paragraph(likely[0])} (`cohort diagnose` says more)")


def show_causes(console: Console, found: Sequence[Cause]) -> None:
    """Causes in their order, each with its evidence and what to try."""
    for number, cause in enumerate(found, start=1):
        console.say(f"\n  [bold]{number}. {cause.says}[/]  [dim]{cause.name}[/]")
        lines = {f"evidence {i}": text for i, text in enumerate(cause.evidence, start=1)}
        groups = ", ".join(f"step {step} ticket {ticket}" for step, ticket in cause.tickets[:4])
        console.lines(lines | ({"groups": groups} if groups else {}) | {"try": cause.what_to_try}, indent=4)
