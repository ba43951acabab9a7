"""What a stage takes from stages before it: `"stage:NAME"` is what the stage of that name trains, as the model of a
reward, as a teacher, or for its tokenizer.
"""

from __future__ import annotations

from cohort.recipe import Recipe
from cohort.settings import Reward as RewardTable
from cohort.settings import Stage
from cohort.train.directory import stage_directory
from cohort.train.stage import kind_of
from cohort.types import UserError

_PREFIX = "stage:"


def with_stage_models(recipe: Recipe, index: int) -> Stage:
    """The stage with directories in place of "stage:NAME" of rewards. Raises UserError where no such stage comes
    before it.
    """
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


def takes_from(stage: Stage) -> dict[str, str]:
    """By what it is here, the stage whose policy is a teacher, or gives its tokenizer."""
    named = {f"teacher '{name}'": one.model for name, one in stage.distillation.teacher.items()}
    if stage.policy.scratch is not None and stage.policy.scratch.tokenizer is not None:
        named["policy.scratch.tokenizer"] = stage.policy.scratch.tokenizer
    return {what: of.removeprefix(_PREFIX) for what, of in named.items() if of.startswith(_PREFIX)}


def with_stage_policies(recipe: Recipe, index: int) -> Stage:
    """The stage with directories in place of "stage:NAME" of teachers and tokenizers. Raises UserError where no such
    stage comes before it.
    """
    stage = recipe.stages[index]
    found = {what: _place(recipe, index, what, name) for what, name in takes_from(stage).items()}
    if not found:
        return stage
    teachers = {
        name: one.model_copy(update={"model": found.get(f"teacher '{name}'", one.model)})
        for name, one in stage.distillation.teacher.items()
    }
    policy = stage.policy
    if policy.scratch is not None:
        tokenizer = found.get("policy.scratch.tokenizer", policy.scratch.tokenizer)
        policy = policy.model_copy(update={"scratch": policy.scratch.model_copy(update={"tokenizer": tokenizer})})
    distillation = stage.distillation.model_copy(update={"teacher": teachers})
    return stage.model_copy(update={"policy": policy, "distillation": distillation})


def _place(recipe: Recipe, index: int, what: str, name: str) -> str:
    before = {one.name: number for number, one in enumerate(recipe.stages[:index]) if kind_of(one).makes_policy}
    if name not in before:
        raise UserError(
            f"{what} is what the stage '{name}' trains, but no stage of that name that trains a policy comes before: "
            f"there is {', '.join(before) or 'none'}"
        )
    return str((stage_directory(recipe, before[name]) / "final").absolute())
