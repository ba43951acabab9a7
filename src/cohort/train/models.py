"""Rewards that score with a model of their own recipe: `model = "stage:NAME"` is what the stage of that name trains."""

from __future__ import annotations

from cohort.recipe import Recipe
from cohort.settings import Reward as RewardTable
from cohort.settings import Stage
from cohort.train.directory import stage_directory
from cohort.types import UserError

_PREFIX = "stage:"


def with_stage_models(recipe: Recipe, index: int) -> Stage:
    """The stage with directories in place of "stage:NAME". Raises UserError where no such stage comes before it."""
    stage = recipe.stages[index]
    waiting = waits_for(stage)
    rewards = (_resolved(recipe, index, one, waiting[one.name]) if one.name in waiting else one for one in stage.reward)
    return stage.model_copy(update={"reward": tuple(rewards)})


def waits_for(stage: Stage) -> dict[str, str]:
    """By reward, the stage whose model it needs; `stage` is as the recipe has it."""
    models = {reward.name: reward.args.get("model") for reward in stage.reward}
    return {
        name: model.removeprefix(_PREFIX)
        for name, model in models.items()
        if isinstance(model, str) and model.startswith(_PREFIX)
    }


def _resolved(recipe: Recipe, index: int, reward: RewardTable, name: str) -> RewardTable:
    before = {stage.name: number for number, stage in enumerate(recipe.stages[:index]) if stage.kind == "reward_model"}
    if name not in before:
        raise UserError(
            f"reward '{reward.name}' scores with the model of the stage '{name}', but no stage of that name that "
            f"trains a reward model comes before it; there is {', '.join(before) or 'none'}"
        )
    where = stage_directory(recipe, before[name]) / "final"
    return reward.model_copy(update={"args": {**reward.args, "model": str(where.absolute())}})
