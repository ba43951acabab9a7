"""Where prompts come from: word problems, files, Hugging Face datasets; how they are split, shown and counted."""

from __future__ import annotations

from cohort.tasks.demonstrations import Demonstrations, open_demonstrations
from cohort.tasks.ledger import Ledger, Ticket
from cohort.tasks.prompts import Prompts
from cohort.tasks.render import R1_ZERO, Renderer, fit
from cohort.tasks.sources import open_rows
from cohort.tasks.supervised import SupervisedExample
from cohort.tasks.task import Task, open_task
from cohort.tasks.word_problems import WordProblems, demonstration, demonstrations

__all__ = [
    "R1_ZERO",
    "Demonstrations",
    "Ledger",
    "Prompts",
    "Renderer",
    "SupervisedExample",
    "Task",
    "Ticket",
    "WordProblems",
    "demonstration",
    "demonstrations",
    "fit",
    "open_demonstrations",
    "open_rows",
    "open_task",
]
