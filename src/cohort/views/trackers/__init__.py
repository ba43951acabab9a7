"""Where the numbers of a step go beside metrics.jsonl: trackers that a person names in `run.trackers`."""

from cohort.views.trackers.sinks import SINKS, Sink, Sinks

__all__ = ["SINKS", "Sink", "Sinks"]
