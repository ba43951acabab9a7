"""Training: the loop, the stream of groups, supervised stages, and the run as a whole."""

from cohort.train.pipeline import Run, train

__all__ = ["Run", "train"]
