"""The recipe: what a person writes to say what is trained and how.

recipe = Recipe.load("recipes/quickstart.toml", ["rollout.group_size=4"])
recipe.stages[0].rollout.group_size, recipe.origins["rollout.group_size"]     # 4, "command line"
"""

from cohort.recipe.json_schema import json_schema
from cohort.recipe.objective import Objective
from cohort.recipe.schema import Recipe, load
from cohort.recipe.show import against_defaults, canonical, differences, digest, to_toml
from cohort.recipe.stage import Stage
from cohort.recipe.tables import (
    Adaptive,
    Critic,
    Curriculum,
    Evaluate,
    Lora,
    Optimizer,
    Policy,
    Preferences,
    Reference,
    Reward,
    Rollout,
    Run,
    Scratch,
    Source,
    Supervised,
    Task,
)

__all__ = [
    "Adaptive",
    "Critic",
    "Curriculum",
    "Evaluate",
    "Lora",
    "Objective",
    "Optimizer",
    "Policy",
    "Preferences",
    "Recipe",
    "Reference",
    "Reward",
    "Rollout",
    "Run",
    "Scratch",
    "Source",
    "Stage",
    "Supervised",
    "Task",
    "against_defaults",
    "canonical",
    "differences",
    "digest",
    "json_schema",
    "load",
    "to_toml",
]
