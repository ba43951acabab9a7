"""Numbers for trackio, in the project that TRACKIO_PROJECT names (else `cohort`); `trackio show` looks at them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cohort.views.trackers.sinks import curated, identity, library, sampled


class Trackio:
    """A `Sink`. A resumed run goes on as the same one there; steps that are written again lie on those of before."""

    def __init__(self, directory: Path, recorded: int):
        self._trackio, self._name = library("trackio", "trackio"), identity(directory)

    def begin(self, config: Mapping[str, Any]) -> None:
        """The run, with the recipe as its configuration."""
        self._run = self._trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "cohort"),
            name=self._name,
            config=dict(config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """All numbers, those to look at first once more in a section of their own."""
        self._run.log({**metrics, **dict(curated(metrics))}, step=step)

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Groups as a table."""
        import pandas as pd

        headings, *cells = sampled(rows)
        self._run.log({"groups": self._trackio.Table(dataframe=pd.DataFrame(cells, columns=headings))}, step=step)

    def close(self) -> None:
        """Write out what is left."""
        self._run.finish()
