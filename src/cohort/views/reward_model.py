"""What people see of a trained reward model: a table on the console."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from cohort.views.console import Console
from cohort.wording import counted

REPORT = "reward_model.json"  # of a stage's directory: the last measures of held-out pairs


def show_report(console: Console, directory: Path) -> None:
    """Print the last measures of held-out pairs, if there are any."""
    file = directory / REPORT
    if not file.exists():
        console.say("  no held-out pairs: set task.held_out to know how good the reward model is")
        return
    report = orjson.loads(file.read_bytes())
    for line in _sentences(report):
        console.say(f"  {line}")
    rows = [
        [f"{b['low']:.0%} to {b['high']:.0%}", str(b["pairs"]), f"{b['confidence']:.1%}", f"{b['accuracy']:.1%}"]
        for b in report["bins"]
    ]
    console.table(("sure by", "pairs", "confidence", "right"), rows, left=0)


def _sentences(report: dict[str, Any]) -> list[str]:
    accuracy = f"{report['accuracy']:.1%} [{report['accuracy_low']:.1%}, {report['accuracy_high']:.1%}]"
    return [
        f"held-out accuracy {accuracy} on {counted(report['pairs'], 'pair')}, loss {report['loss']:.3f}",
        f"expected calibration error {report['calibration_error']:.3f}",
        f"length: the longer answer is the better one in {_share(report['longer_chosen'])} of the pairs, and scores "
        f"higher in {_share(report['longer_preferred'])}; correlation of score and token differences "
        f"{'not measurable' if report['length_correlation'] is None else format(report['length_correlation'], '.2f')}",
        f"scores: mean {report['score_mean']:.2f}, standard deviation {report['score_std']:.2f}",
    ]


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"
