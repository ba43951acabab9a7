"""Another name of `cohort.rewards.verifiers.constraints.constraints`, for programs and documents."""

from cohort.rewards.verifiers.constraints.constraints import *  # noqa: F403
