"""Another name of `cohort.rewards.verifiers.length`, for programs and documents."""

from cohort.rewards.verifiers.length import *  # noqa: F403
