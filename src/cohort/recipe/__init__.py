"""The recipe: what a person writes to say what is trained and how.

recipe = Recipe.load("recipes/quickstart.toml", ["rollout.group_size=4"])
recipe.stages[0].rollout.group_size, recipe.origins["rollout.group_size"]     # 4, "command line"
"""

from cohort.recipe.json_schema import json_schema
from cohort.recipe.schema import Recipe, load
from cohort.recipe.show import against_defaults, between, canonical, differences, digest, to_toml

__all__ = [
    "Recipe",
    "against_defaults",
    "between",
    "canonical",
    "differences",
    "digest",
    "json_schema",
    "load",
    "to_toml",
]
