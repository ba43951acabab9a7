"""Another name of `cohort.rewards.verifiers.number`, for programs and documents."""

from cohort.rewards.verifiers.number import *  # noqa: F403
