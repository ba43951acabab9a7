"""What follows when the detectors find something while a stage trains: what [monitor] says."""

from __future__ import annotations

from collections.abc import Iterable

from cohort.monitor.detectors.finding import Finding
from cohort.train.stage import Context
from cohort.types import PausedError


def act(context: Context, found: Iterable[Finding], step: int) -> None:
    """Do about what was found in the step what the recipe says. Raises `PausedError` where it says pause."""
    pausing: list[Finding] = []
    for one in (one for one in found if one.step == step):
        action = context.stage.monitor.action_of(one.detector)
        if action != "log":
            context.console.warn(one.said)
        pausing += [one] if action == "pause" else []
    if pausing and step < context.last:
        names = ", ".join(one.detector for one in pausing)
        raise PausedError(f"paused after step {step} by {names}, as [monitor] says; `cohort diagnose` says more")
