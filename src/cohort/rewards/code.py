"""Another name of `cohort.rewards.verifiers.code.code`, for programs and documents."""

from cohort.rewards.verifiers.code.code import *  # noqa: F403
