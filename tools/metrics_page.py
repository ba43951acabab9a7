"""Write the tables of docs/metrics.md from the glossary: `python tools/metrics_page.py`. A test checks them."""

from __future__ import annotations

from pathlib import Path

from cohort.monitor.names import SECTIONS, Metric

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
MARK = "<!-- metrics: written by tools/metrics_page.py from the glossary -->\n"
BETTER = {"up": "higher", "down": "lower", "": ""}


def metrics_page(page: str) -> str:
    """The page with its tables as the glossary has them."""
    return "\n".join([page[: page.index(MARK)] + MARK, *(section(title, part) for title, part in SECTIONS.items())])


def section(title: str, part: tuple[Metric, ...]) -> str:
    rows = [
        f"| `{m.name}` | {m.unit} | {m.meaning} | {BETTER[m.better]} | {'' if m.merge == 'mean' else m.merge} |"
        for m in part
    ]
    return "\n".join(
        [f"## {title}", "", "| name | unit | what it says | better | of updates |", "|---|---|---|---|---|", *rows, ""]
    )


if __name__ == "__main__":
    PAGE.write_text(metrics_page(PAGE.read_text("utf-8")), "utf-8")
