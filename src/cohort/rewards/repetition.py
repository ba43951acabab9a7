"""Another name of `cohort.rewards.verifiers.repetition`, for programs and documents."""

from cohort.rewards.verifiers.repetition import *  # noqa: F403
