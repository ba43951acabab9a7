"""reasoning-gym as a source: the tasks whose scoring survived the gate, each problem from a seed of its own."""

from __future__ import annotations

from cohort.tasks.gym.admitted import Admitted, admission, admitted_tasks, refused_tasks
from cohort.tasks.gym.source import GymProblems

__all__ = ["Admitted", "GymProblems", "admission", "admitted_tasks", "refused_tasks"]
