"""Write docs/metrics.md from the glossary: `python tools/metrics_page.py`. A test checks that it is up to date."""

from __future__ import annotations

from pathlib import Path

from cohort.monitor.names import SECTIONS, Metric

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
HEAD = """# Metrics

Every number that a stage writes to `metrics.jsonl`, one JSON object a step with flat keys: `step`, then these. In
place of `{}` stands the name of a reward, a label, a level, a source or a number. What could not be measured is
`null`. Step 0 is the evaluation before the first step. The live line, trackers and detectors read the same table
(`cohort.monitor.names`).

A step may have several updates (`optimizer.updates_per_batch`, `optimizer.epochs`). Their numbers are added up where
the last column says *sum*, and the largest counts where it says *max*; a mean over tokens is weighted by the tokens
where it says *by tokens*; the others are averaged.
"""
BETTER = {"up": "higher", "down": "lower", "": ""}


def metrics_page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(section(title, part) for title, part in SECTIONS.items())])


def section(title: str, part: tuple[Metric, ...]) -> str:
    rows = [
        f"| `{m.name}` | {m.unit} | {m.meaning} | {BETTER[m.better]} | {'' if m.merge == 'mean' else m.merge} |"
        for m in part
    ]
    return "\n".join(
        [f"## {title}", "", "| name | unit | what it says | better | of updates |", "|---|---|---|---|---|", *rows, ""]
    )


if __name__ == "__main__":
    PAGE.write_text(metrics_page(), "utf-8")
