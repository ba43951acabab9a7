"""Where the numbers of a step go beside metrics.jsonl: trackers that a person names in `run.trackers`."""

from cohort.views.trackers.sinks import Sink, Sinks

__all__ = ["Sink", "Sinks"]
