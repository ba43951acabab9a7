"""The tables of a recipe as data: one file a table, every field with its default and one line on what it does.

A room takes the table that it is set by, so that no setting is typed out again on its way.
"""

from cohort.settings.critic import Critic
from cohort.settings.environment import Environment
from cohort.settings.evaluate import Evaluate
from cohort.settings.objective import Objective
from cohort.settings.optimizer import Optimizer
from cohort.settings.policy import Lora, Policy, Scratch
from cohort.settings.preferences import Preferences
from cohort.settings.reference import Reference
from cohort.settings.reward import Reward
from cohort.settings.rollout import SAMPLERS, Rollout
from cohort.settings.run import SINKS, Run
from cohort.settings.stage import KINDS, Stage
from cohort.settings.supervised import Supervised
from cohort.settings.table import Table
from cohort.settings.task import Adaptive, Curriculum, Prompts, Source, Task

__all__ = [
    "KINDS",
    "SAMPLERS",
    "SINKS",
    "Adaptive",
    "Critic",
    "Curriculum",
    "Environment",
    "Evaluate",
    "Lora",
    "Objective",
    "Optimizer",
    "Policy",
    "Preferences",
    "Prompts",
    "Reference",
    "Reward",
    "Rollout",
    "Run",
    "Scratch",
    "Source",
    "Stage",
    "Supervised",
    "Table",
    "Task",
]
