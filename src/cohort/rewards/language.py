"""Another name of `cohort.rewards.verifiers.language`, for programs and documents."""

from cohort.rewards.verifiers.language import *  # noqa: F403
