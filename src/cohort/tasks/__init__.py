"""Where prompts come from, how they are split and shown to the model, and which comes next."""

from __future__ import annotations

from cohort.tasks.demonstrations import Demonstrations, SupervisedExample, open_demonstrations, open_examples
from cohort.tasks.order.ledger import Ledger, Ticket
from cohort.tasks.order.mixture import Mixture
from cohort.tasks.order.selection import Selection, Tickets
from cohort.tasks.preferences import Pairs, PreferencePair, Preferences, open_pairs, open_preferences
from cohort.tasks.prompts import Prompts
from cohort.tasks.render import R1_ZERO, Renderer, fit
from cohort.tasks.sources.base import SOURCES, Found, SourceOfPrompts
from cohort.tasks.sources.rows import open_rows
from cohort.tasks.task import Task, open_mixture, open_prompts, open_task

__all__ = [
    "R1_ZERO",
    "SOURCES",
    "Demonstrations",
    "Found",
    "Ledger",
    "Mixture",
    "Pairs",
    "PreferencePair",
    "Preferences",
    "Prompts",
    "Renderer",
    "Selection",
    "SourceOfPrompts",
    "SupervisedExample",
    "Task",
    "Ticket",
    "Tickets",
    "fit",
    "open_demonstrations",
    "open_examples",
    "open_mixture",
    "open_pairs",
    "open_preferences",
    "open_prompts",
    "open_rows",
    "open_task",
]
