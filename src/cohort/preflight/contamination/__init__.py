"""Contamination: is what a model is judged by among what it is trained on? `look` reads the training side row by row
and compares it with an index of the small side, in several `layers`, each of which is counted by itself.
"""

from cohort.preflight.contamination.layers import LAYERS, SHORT
from cohort.preflight.contamination.looking import EVERY, look
from cohort.preflight.contamination.report import Example, Finding, Report
from cohort.preflight.contamination.texts import Question

__all__ = ["EVERY", "LAYERS", "SHORT", "Example", "Finding", "Question", "Report", "look"]
