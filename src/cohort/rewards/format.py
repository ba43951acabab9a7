"""Another name of `cohort.rewards.verifiers.format`, for programs and documents."""

from cohort.rewards.verifiers.format import *  # noqa: F403
