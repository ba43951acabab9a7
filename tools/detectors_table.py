"""Measure the detectors and write the table of docs/detectors.md: `python tools/detectors_table.py [RUN ...]`.

True alarms and delays are measured on injected failures (tests/monitor/injected.py), ten seeds each; false alarms on as
many runs in which nothing fails and on the recorded RUNs, directories of runs that are well.
"""

from __future__ import annotations

import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "monitor"))

import injected  # noqa: E402

from cohort.monitor.watcher import Watcher, detect, detectors  # noqa: E402
from cohort.record.metrics import read_metrics  # noqa: E402
from cohort.settings import Monitor  # noqa: E402

PAGE = ROOT / "docs" / "detectors.md"
MARKS = re.compile(r"(<!-- table: .*? -->\n).*(<!-- end of table -->)", re.DOTALL)
SEEDS = range(10)


def injected_steps(name: str | None, seed: int) -> dict[str, int]:
    """The detectors that speak in a made run, and the first step of each."""
    watcher, first = Watcher(Monitor()), dict[str, int]()
    for line, groups in injected.steps(name, seed):
        for one in watcher.see(line, groups):
            first.setdefault(one.detector, one.step)
    return first


def table(runs: list[Path]) -> str:
    """The table, and what it was measured on."""
    well = [injected_steps(None, seed) for seed in SEEDS]
    places = [place for run in runs for place in (run, *sorted(run.glob("stages/*")))]
    stages = [place for place in places if (place / "metrics.jsonl").exists()]
    found = {place: list(detect(place, Monitor())) for place in stages}
    rows = ["| detector | severity | true alarms | delay, steps | false alarms, made | false alarms, recorded |"]
    rows += ["|---|---|---|---|---|---|"]
    for one in detectors():
        delays = [
            steps[one.name] - injected.START
            for seed in SEEDS
            if (steps := injected_steps(one.name, seed)).get(one.name, 0) >= injected.START
        ]
        delay = f"{statistics.median(delays):.0f} ({min(delays)} to {max(delays)})" if delays else ""
        false = sum(one.name in steps for steps in well)
        recorded = sum(any(finding.detector == one.name for finding in of) for of in found.values())
        rows.append(
            f"| `{one.name}` | {one.severity} | {len(delays)} of {len(SEEDS)} | {delay} | {false} of {len(SEEDS)} | "
            f"{recorded} of {len(stages)} |"
        )
    steps = sum(line["step"] > 0 for place in stages for line in read_metrics(place / "metrics.jsonl"))
    names = ", ".join(run.name for run in runs)
    return "\n".join([*rows, "", f"Recorded: {len(stages)} stages of {names}, {steps:,} steps.", ""])


if __name__ == "__main__":
    new = table([Path(run) for run in sys.argv[1:]])
    PAGE.write_text(MARKS.sub(lambda m: m[1] + new + m[2], PAGE.read_text("utf-8")), "utf-8")
