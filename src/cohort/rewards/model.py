"""Another name of `cohort.rewards.models.reward_model`, for programs and documents."""

from cohort.rewards.models.reward_model import *  # noqa: F403
