"""Another name of `cohort.rewards.verifiers.choice`, for programs and documents."""

from cohort.rewards.verifiers.choice import *  # noqa: F403
