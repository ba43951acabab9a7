"""Train the recipes that go well on three seeds, and fail where a detector raises an alarm above "worth a look".

    .venv/bin/python tools/healthy_runs.py [--to DIRECTORY] [--seeds 3] [--page] [key=value ...]

Runs are kept in DIRECTORY (default runs/healthy): the same command goes on where it was stopped and trains nothing
twice. Settings behind it are for all of them, such as `grpo.run.steps=10`. With --page the table of docs/detectors.md
is written anew, with these runs as the ones that went well.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from cohort.monitor.watcher import detect
from cohort.settings import Monitor

ROOT = Path(__file__).parent.parent
RECIPES = ("quickstart", "calculator", "lora")


def alarms(run: Path) -> tuple[list[str], list[str]]:
    """What the detectors find in all stages of a run: what is worth a look, and what is an alarm."""
    found: tuple[list[str], list[str]] = ([], [])
    for stage in (run, *sorted(run.glob("stages/*"))):
        if (stage / "metrics.jsonl").exists():
            for one in detect(stage, Monitor()):
                found[one.severity == "critical"].append(f"{stage.relative_to(run.parent)}: {one.said}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=ROOT / "runs" / "healthy")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--page", action="store_true", help="write the table of docs/detectors.md")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    given = parser.parse_args()
    command, failed, runs = Path(sys.executable).parent / "cohort", 0, []
    for recipe in RECIPES:
        for seed in range(given.seeds):
            name = f"{recipe}-{seed}"
            own = [f"name={name}", f"seed={seed}", f"run.directory={given.to}", *given.settings]
            what = [command, "train", ROOT / "recipes" / f"{recipe}.toml", "--resume", *own]
            subprocess.run(what, check=True, stdout=sys.stderr)
            runs.append(given.to / name)
            look, alarm = alarms(runs[-1])
            failed += bool(alarm)
            print(f"{name}: {len(alarm)} alarms, {len(look)} worth a look", flush=True)
            for line in (*alarm, *look):
                print(f"  {line}", flush=True)
    if given.page:
        subprocess.run([sys.executable, ROOT / "tools" / "detectors_table.py", *runs], check=True)
    print(f"{len(runs)} runs, and detectors raised an alarm in {failed} of them")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
