"""The tables of a recipe as data: one file a subject, every field with its default and one line on what it does.

A room takes the table that it is set by, so that no setting is typed out again on its way.
"""

from cohort.settings.cluster import Cluster
from cohort.settings.distill import Distill, Divergence, SelfDistill, Teacher
from cohort.settings.environment import Environment
from cohort.settings.monitor import ADAPTED, DETECTORS, Adapt, Monitor
from cohort.settings.objective import Objective
from cohort.settings.policy import Lora, Policy, Scratch
from cohort.settings.record import Record
from cohort.settings.reject import Dpo, Reject, Rft
from cohort.settings.reward import Reward
from cohort.settings.rows import PythonRows
from cohort.settings.run import SINKS, Run, Stop
from cohort.settings.sampling import SAMPLERS, Evaluate, Rollout, Vllm
from cohort.settings.stage import GROUPS, KEEPS, KINDS, SAMPLED, SCORERS, Stage, named_stage, policy_of
from cohort.settings.suite import Suite
from cohort.settings.table import Table
from cohort.settings.task import Adaptive, Curriculum, Prompts, Source, Task
from cohort.settings.training import Critic, Optimizer, Preferences, Reference, Supervised

__all__ = [
    "ADAPTED",
    "DETECTORS",
    "GROUPS",
    "KEEPS",
    "KINDS",
    "SAMPLED",
    "SAMPLERS",
    "SCORERS",
    "SINKS",
    "Adapt",
    "Adaptive",
    "Cluster",
    "Critic",
    "Curriculum",
    "Distill",
    "Divergence",
    "Dpo",
    "Environment",
    "Evaluate",
    "Lora",
    "Monitor",
    "Objective",
    "Optimizer",
    "Policy",
    "Preferences",
    "Prompts",
    "PythonRows",
    "Record",
    "Reference",
    "Reject",
    "Reward",
    "Rft",
    "Rollout",
    "Run",
    "Scratch",
    "SelfDistill",
    "Source",
    "Stage",
    "Stop",
    "Suite",
    "Supervised",
    "Table",
    "Task",
    "Teacher",
    "Vllm",
    "named_stage",
    "policy_of",
]
