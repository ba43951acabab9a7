"""Whether a benchmark's ratios have moved since its baseline, `bench/NAME.json`, was checked in.

    .venv/bin/python bench/vs_trl.py --trl .venv-trl/bin/python --json /tmp/vs_trl.json
    .venv/bin/python bench/compare.py /tmp/vs_trl.json               # against bench/vs_trl.json
    .venv/bin/python bench/compare.py /tmp/vs_trl.json --keep        # this run is the baseline from now on

Seconds of two machines, or of one machine on two days, say little; ratios of sides that took turns, or a share of what
the machine multiplied beside it, can be compared. The exit code is 1 where one of them has moved by more than the
tolerance, whichever way, and 2 where there is nothing to compare. What one of the two runs has left out is said, and
has not moved.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turns import HERE, table

__all__ = ["keep", "moved", "rows"]

TOLERANCE = 0.15  # what two runs of the same code differed by on a machine with others' work on it


def moved(before: float, now: float, tolerance: float) -> bool:
    """Whether a ratio is another one by more than `tolerance` of what it was."""
    return abs(now / before - 1) > tolerance


def rows(before: Mapping[str, float], now: Mapping[str, float], tolerance: float) -> list[list[str]]:
    """A line for every ratio that either run has: its name, both values, the change, and what is said of it."""
    found = []
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        if old is None or new is None:
            said = "not in the baseline" if old is None else "not measured"
            found.append([name, *("-" if one is None else f"{one:.3g}" for one in (old, new)), "-", said])
        else:
            said = "**moved**" if moved(old, new, tolerance) else ""
            found.append([name, f"{old:.3g}", f"{new:.3g}", f"{new / old - 1:+.0%}", said])
    return found


def keep(result: Mapping[str, Any], baseline: Path) -> None:
    """Write what is checked in of a result: all but the numbers behind its ratios; cases that this run has left out
    stay as they were.
    """
    older = json.loads(baseline.read_text("utf-8"))["ratios"] if baseline.is_file() else {}
    kept = {key: value for key, value in result.items() if key != "data"}
    baseline.write_text(json.dumps(kept | {"ratios": older | result["ratios"]}, indent=1) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("result", type=Path, help="what a benchmark wrote with --json")
    parser.add_argument("--baseline", type=Path, help="the file of bench/ with the result's name when not given")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="a share of the ratio")
    parser.add_argument("--keep", action="store_true", help="make this result the baseline")
    given = parser.parse_args()
    baseline = given.baseline or HERE / given.result.name
    result = json.loads(given.result.read_text("utf-8"))
    if not result.get("ratios"):
        parser.error(f"{given.result} has no ratios: only benchmarks whose sides take turns have such")
    if given.keep:
        keep(result, baseline)
        return
    if not baseline.is_file():
        parser.error(f"there is no baseline {baseline}: --keep makes this result one")
    before = json.loads(baseline.read_text("utf-8"))
    lines = rows(before["ratios"], result["ratios"], given.tolerance)
    print(table(("ratio", "baseline", "now", "by", ""), lines))
    if before["machine"]["processor"] != result["machine"]["processor"]:
        print(f"\nThe baseline is of another processor: {before['machine']['processor']}.")
    sys.exit(int(any(line[-1] == "**moved**" for line in lines)))


if __name__ == "__main__":
    main()
