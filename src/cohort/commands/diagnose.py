"""`cohort diagnose`: what went wrong in a run, with the groups that show it, and answers to what is often asked."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from cohort.account.sources import RunFiles
from cohort.monitor.doctor import Cause, answers, causes
from cohort.monitor.watcher import detect, read_incidents
from cohort.recipe import Recipe
from cohort.recipe.loader import of_run
from cohort.views.console import Console
from cohort.views.diagnosis import show_causes


def diagnose(run: Path) -> dict[str, Any]:
    """Of every stage that has begun, what was found, the causes, and questions with their answers. Findings of a run
    that was trained without detectors are made from its files now. Raises `UnreadableError` for what is no run.
    """
    stages = []
    for files in RunFiles(run, Recipe.load(of_run(run))).stages:
        if files.steps:
            found = read_incidents(files.place) or list(detect(files.place, files.stage.monitor))
            stages.append(
                {
                    "stage": files.stage.name,
                    "steps": files.steps[-1]["step"],
                    "findings": [asdict(one) for one in found],
                    "causes": [asdict(one) for one in causes(found, files.stage)],
                    "questions": dict(answers(files.steps)),
                }
            )
    return {"run": str(run), "stages": stages}


def show(console: Console, found: dict[str, Any]) -> None:
    """In words."""
    for stage in found["stages"]:
        console.say(f"\n[bold]{stage['stage']}[/], {stage['steps']} steps")
        if stage["causes"]:
            if all(one["severity"] != "critical" for one in stage["findings"]):
                console.say("  nothing is broken for certain; worth a look:")
            show_causes(console, [Cause(**one) for one in stage["causes"]])
        elif stage["findings"]:
            console.say("  nothing went wrong; what was found on the way:")
            console.lines({f"step {one['step']}": f"{one['detector']}: {one['line']}" for one in stage["findings"]}, 4)
        else:
            console.say("  no detector found anything")
        if stage["questions"]:
            console.say()
            console.lines(stage["questions"])
    if not found["stages"]:
        console.say("  no step of this run is done yet: there is nothing to diagnose")
