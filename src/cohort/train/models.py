"""Rewards that score with a model of their own recipe: `model = "stage:NAME"` is what the stage of that name trains."""

from __future__ import annotations

from typing import Any

from cohort.recipe import Recipe
from cohort.settings import Reward as RewardTable
from cohort.settings import Stage
from cohort.train.directory import stage_directory
from cohort.types import UserError

__all__ = ["waits_for", "with_stage_models"]

_PREFIX = "stage:"


def with_stage_models(recipe: Recipe, index: int) -> Stage:
    """The stage with directories in place of "stage:NAME". Raises UserError where no such stage comes before it."""
    stage = recipe.stages[index]
    rewards = tuple(_resolved(recipe, index, reward) for reward in stage.reward)
    return stage.model_copy(update={"reward": rewards})


def waits_for(stage: Stage) -> dict[str, str]:
    """By reward, the stage whose model it needs; `stage` is as the recipe has it."""
    return {reward.name: name for reward in stage.reward if (name := _named(reward.args.get("model"))) is not None}


def _named(model: Any) -> str | None:
    return model.removeprefix(_PREFIX) if isinstance(model, str) and model.startswith(_PREFIX) else None


def _resolved(recipe: Recipe, index: int, reward: RewardTable) -> RewardTable:
    name = _named(reward.args.get("model"))
    if name is None:
        return reward
    before = {stage.name: number for number, stage in enumerate(recipe.stages[:index]) if stage.kind == "reward_model"}
    if name not in before:
        raise UserError(
            f"reward '{reward.name}' scores with the model of the stage '{name}', but no stage of that name that "
            f"trains a reward model comes before it; there is {', '.join(before) or 'none'}"
        )
    where = stage_directory(recipe, before[name]) / "final"
    return reward.model_copy(update={"args": {**reward.args, "model": str(where.absolute())}})
