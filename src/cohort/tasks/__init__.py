"""Where prompts come from: word problems, files, Hugging Face datasets; how they are split, shown and counted."""

from __future__ import annotations

from cohort.tasks.adaptive import Adaptive
from cohort.tasks.curriculum import Curriculum
from cohort.tasks.demonstrations import Demonstrations, open_demonstrations
from cohort.tasks.ledger import Ledger, Ticket, Tickets
from cohort.tasks.mixture import Mixture
from cohort.tasks.prompts import Prompts
from cohort.tasks.render import R1_ZERO, Renderer, fit
from cohort.tasks.selection import Selection
from cohort.tasks.sources import open_rows
from cohort.tasks.supervised import SupervisedExample
from cohort.tasks.task import Task, open_mixture, open_task
from cohort.tasks.word_problems import WordProblems, demonstration, demonstrations

__all__ = [
    "R1_ZERO",
    "Adaptive",
    "Curriculum",
    "Demonstrations",
    "Ledger",
    "Mixture",
    "Prompts",
    "Renderer",
    "Selection",
    "SupervisedExample",
    "Task",
    "Ticket",
    "Tickets",
    "WordProblems",
    "demonstration",
    "demonstrations",
    "fit",
    "open_demonstrations",
    "open_mixture",
    "open_rows",
    "open_task",
]
