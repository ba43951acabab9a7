"""The protocol of a tracker, and what hands the numbers of every step to all of them.

metrics.jsonl is no tracker: a run that cannot write it stops. A tracker that fails is dropped with a word, and the run
goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from cohort.settings import SINKS
from cohort.types import UserError
from cohort.wording import find_function, one_line

__all__ = ["SINKS", "Sink", "Sinks"]


class Sink(Protocol):
    """Takes numbers somewhere. It is opened by a function of two arguments: the directory of the stage, and the last
    step that counts (-1 in a new run): what was written of later steps is written again.
    """

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """The metrics of one step; step 0 is what was measured before the first."""
        ...

    def close(self) -> None:
        """Write out what is left."""
        ...


class Sinks:
    """All trackers of a stage. None of them can stop it: one that raises is named once and left out from then on."""

    def __init__(self, sinks: Mapping[str, Sink], warn: Callable[[str], None]):
        self._sinks, self._warn = dict(sinks), warn

    @staticmethod
    def open(names: Sequence[str], directory: Path, recorded: int, warn: Callable[[str], None]) -> Sinks:
        """The trackers of these names. Raises `UserError` for one that there is not, or that does not start."""
        found: dict[str, Sink] = {}
        for name in names:
            opens = find_function(SINKS.get(name, name), "tracker")
            try:
                found[name] = opens(directory, recorded)
            except UserError:
                raise
            except Exception as error:  # a foreign library may raise anything
                raise UserError(
                    f"the tracker '{name}' does not start: {type(error).__name__}: {one_line(error)}. Mend that, or "
                    "take it out of run.trackers"
                ) from None
        return Sinks(found, warn)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Hand the metrics of one step to every tracker; where nothing was measured there is nothing to hand on."""
        if not metrics:
            return
        self._each(lambda sink: sink.write(step, metrics))

    def close(self) -> None:
        """Let every tracker finish."""
        self._each(lambda sink: sink.close())

    def _each(self, do: Callable[[Sink], None]) -> None:
        for name, sink in list(self._sinks.items()):
            try:
                do(sink)
            except Exception as error:  # a foreign library may raise anything, and it is not worth a run
                del self._sinks[name]
                self._warn(
                    f"the tracker '{name}' failed and is left out from here on: {type(error).__name__}: "
                    f"{one_line(error)}"
                )
