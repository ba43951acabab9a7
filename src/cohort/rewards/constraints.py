"""Another name of `cohort.rewards.verifiers.constraints`, for programs and documents."""

from cohort.rewards.verifiers.constraints import *  # noqa: F403
