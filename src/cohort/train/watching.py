"""What the detectors find while a stage trains: recorded, said, and acted on as [monitor] says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cohort.monitor.detectors.finding import Finding
from cohort.monitor.watcher import INCIDENTS, Watcher, lines_of, read_incidents
from cohort.record.metrics import read_metrics
from cohort.train.stage import Context
from cohort.types import Group, PausedError


class Watch:
    """The detectors of a stage under way, as they were after the step `recorded`."""

    def __init__(self, context: Context, recorded: int):
        self._context, self._table = context, context.stage.monitor
        self._found = read_incidents(context.directory, recorded)
        lines = read_metrics(context.metrics) if context.metrics.exists() else []
        self._watcher = Watcher(self._table, lines, self._found)
        self._file = context.log / INCIDENTS
        if self._file.exists():  # what a run that goes on has abandoned is found again
            context.recorder.file(self._file, lines_of(self._found), recorded, kind="resume")

    def see(self, line: Mapping[str, float], groups: Iterable[Group]) -> None:
        """Look at the numbers and groups of a step, and enter what is found in the record."""
        found = self._watcher.see(line, groups)
        if found:
            self._found += found
            self._context.recorder.file(self._file, lines_of(self._found), found[0].step, kind="incident")

    def act(self, step: int) -> None:
        """Do about the findings of the step what the recipe says. Raises `PausedError` where it says pause."""
        pausing: list[Finding] = []
        for one in (one for one in self._found if one.step == step):
            action = self._table.action_of(one.detector)
            if action != "log":
                self._context.console.warn(one.said)
            pausing += [one] if action == "pause" else []
        if pausing and step < self._context.last:
            names = ", ".join(one.detector for one in pausing)
            raise PausedError(f"paused after step {step} by {names}, as [monitor] says; `cohort diagnose` says more")
