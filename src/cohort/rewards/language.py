"""Another name of `cohort.rewards.verifiers.language.language`, for programs and documents."""

from cohort.rewards.verifiers.language.language import *  # noqa: F403
