"""One stage of training: a kind and its tables."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from cohort.recipe.objective import Objective
from cohort.recipe.tables import (
    Critic,
    Environment,
    Evaluate,
    Optimizer,
    Policy,
    Preferences,
    Reference,
    Reward,
    Rollout,
    Run,
    Supervised,
    Table,
    Task,
    Text,
)

__all__ = ["Stage", "reward_list"]


def reward_list(given: Any) -> list[Any]:
    """The `reward` key in any of its forms (a name, a function, a table, or a list of these) as a list."""
    return list(given) if isinstance(given, list | tuple) else [given]


class Stage(Table):
    """One stage with everything it needs."""

    kind: Literal["grpo", "sft", "reward_model"] = Field(
        default="grpo", description="What the stage does: GRPO, supervised training, or training a reward model."
    )
    name: Text = Field(default="grpo", description="Name of the stage in overrides, metrics and directories.")
    policy: Policy = Field(default=Policy(), description="The model to train.")
    task: Task = Field(description="Where prompts and answers come from.")
    rollout: Rollout = Field(default=Rollout(), description="How groups of completions are sampled.")
    environment: Environment = Field(default=Environment(), description="What the policy acts in.")
    reward: Annotated[tuple[Reward, ...], Field(strict=False)] = Field(
        default=(), description="How completions are scored."
    )
    objective: Objective = Field(default=Objective(), description="What is optimised.")
    optimizer: Optimizer = Field(default=Optimizer(), description="How the weights move.")
    critic: Critic = Field(default_factory=Critic, description="The value model of PPO.")
    evaluate: Evaluate = Field(default=Evaluate(), description="How held-out accuracy is measured.")
    reference: Reference = Field(default=Reference(), description="What the KL term compares with.")
    run: Run = Field(default=Run(), description="How long, how often, and where.")
    supervised: Supervised = Field(default=Supervised(), description="Settings of supervised stages.")
    preferences: Preferences = Field(default=Preferences(), description="Settings of reward_model stages.")

    @field_validator("reward", mode="before")
    @classmethod
    def _as_list(cls, given: Any) -> list[Any]:
        return reward_list(given)
