"""Evaluation: accuracy on held-out problems, with intervals."""

from cohort.evaluate.accuracy import Accuracy, evaluate
from cohort.evaluate.intervals import mean_interval, pass_at_k, wilson

__all__ = ["Accuracy", "evaluate", "mean_interval", "pass_at_k", "wilson"]
