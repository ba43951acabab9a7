"""Where prompts come from, how they are split and shown to the model, and which comes next."""

from __future__ import annotations

from cohort.tasks.demonstrations import Demonstrations, SupervisedExample, open_demonstrations, open_examples
from cohort.tasks.order.ledger import Ledger
from cohort.tasks.order.mixture import Selection, Tickets
from cohort.tasks.preferences import PreferencePair, Preferences, open_preferences
from cohort.tasks.prompts import Prompts
from cohort.tasks.render import R1_ZERO, Renderer, fit
from cohort.tasks.sources.base import Found, SourceOfPrompts
from cohort.tasks.task import Task, open_mixture, open_prompts, open_task

__all__ = [
    "R1_ZERO",
    "Demonstrations",
    "Found",
    "Ledger",
    "PreferencePair",
    "Preferences",
    "Prompts",
    "Renderer",
    "Selection",
    "SourceOfPrompts",
    "SupervisedExample",
    "Task",
    "Tickets",
    "fit",
    "open_demonstrations",
    "open_examples",
    "open_mixture",
    "open_preferences",
    "open_prompts",
    "open_task",
]
