"""Another name of `cohort.rewards.verifiers.text`, for programs and documents."""

from cohort.rewards.verifiers.text import *  # noqa: F403
