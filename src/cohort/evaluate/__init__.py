"""Evaluation: what a model does on held-out problems, with intervals, and what became better."""

from cohort.evaluate.accuracy import Accuracy, Measure, evaluate
from cohort.evaluate.compare import Paired, paired
from cohort.evaluate.estimates import best_of_k, majority_at_k, pass_at_k
from cohort.evaluate.intervals import mean_interval

__all__ = [
    "Accuracy",
    "Measure",
    "Paired",
    "best_of_k",
    "evaluate",
    "majority_at_k",
    "mean_interval",
    "paired",
    "pass_at_k",
]
