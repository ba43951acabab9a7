"""`cohort view`: runs in a browser, in one file, as a figure, or in a few lines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from cohort.record.files import write_bytes
from cohort.settings import Stage
from cohort.types import UnreadableError, UserError
from cohort.views.console import Console, escape
from cohort.views.dashboard.overview import Overview, overview
from cohort.views.dashboard.runs import RunFiles, open_runs

RUNS = Path("runs")


def opened(places: Sequence[Path]) -> list[RunFiles]:
    """The runs that are named, else those in runs/. Raises `UnreadableError` where there are none."""
    found = list(places) or sorted(place.parent for place in RUNS.glob("*/recipe.toml"))
    if not found:
        raise UnreadableError(f"there is no run in {RUNS}/: name one, as in `cohort view runs/quickstart`")
    return open_runs(found)


def overviews(runs: Sequence[RunFiles]) -> dict[str, Any]:
    """What the first screen shows of each run."""
    return {"runs": [overview(run, run.stage(run.latest)) for run in runs]}


def export(run: RunFiles, file: Path) -> dict[str, Any]:
    """The run as one file. Raises `UserError` where it cannot be written."""
    from cohort.views.dashboard.export import report

    content = report(run).encode("utf-8", "replace")
    try:
        write_bytes(file, content)
    except OSError as error:
        raise UserError(f"cannot write {str(file)!r}: {error.strerror or error}") from None
    return {"file": str(file), "bytes": len(content)}


def plot(run: RunFiles, file: Path) -> dict[str, Any]:
    """Its curves as a figure."""
    from cohort.views.dashboard.notebook import plot as draw

    return {"file": str(draw(run, file))}


def serve(runs: Sequence[RunFiles], host: str, port: int | None, browser: bool) -> None:
    """Show them in a browser until Ctrl-C."""
    from cohort.views.dashboard.app import serve as listen
    from cohort.views.dashboard.screens import Site

    console = Console()
    listen(
        Site(runs, _explained, measure=measured),
        host=host,
        port=port,
        browser=browser,
        say=lambda line: console.plain(f"{line}\n"),
    )


def _explained(stage: Stage, other: Stage) -> list[tuple[str, Any, Any, str]]:
    from cohort.commands.explain import stage_differences  # with torch

    return stage_differences(stage, other)


def measured(run: Path, stage: str, step: int, group: int) -> dict[int, dict[str, Any]]:
    """By completion the numbers of its tokens, computed by `cohort replay --tokens` in a process of its own, which goes
    behind all others. Raises `UserError` with what that says.
    """
    code = "import os; getattr(os, 'nice', int)(10); from cohort.cli import main; main()"
    asked = ("replay", str(run), "--stage", stage, "--step", str(step), "--group", str(group), "--tokens", "--json")
    done = subprocess.run([sys.executable, "-c", code, *asked], capture_output=True, check=False)
    try:
        found = orjson.loads(done.stdout)
    except orjson.JSONDecodeError:
        raise UserError(f"`cohort replay` ended with {done.returncode} and said nothing") from None
    if "error" in found:
        raise UserError(found["error"])
    return {one["member"]: one for one in found["completions"]}


def show_file(console: Console, found: dict[str, Any]) -> None:
    """Where it went."""
    console.say(escape(f"written: {found['file']}" + (f", {found['bytes']:,} bytes" if "bytes" in found else "")))


def show(console: Console, found: dict[str, Any]) -> None:
    """The first screen in words."""
    for one in found["runs"]:
        _show(console, one)


def _show(console: Console, one: Overview) -> None:
    console.say(f"\n[bold]{escape(one.name)}[/]  {one.state.word}: {escape(one.state.says)}")
    console.say(f"  [bold]{escape(one.verdict.headline)}[/]")
    for line in (*one.verdict.sentences, *one.what):
        console.say(f"  {escape(line)}")
    for alarm in one.alarms:
        console.warn(f"{alarm.detector}, step {alarm.first}: {alarm.line} {alarm.look_at}")
    console.say()
    console.lines({trend.title: trend.sentence for trend in one.trends}, 2)
