"""Another name of `cohort.rewards.verifiers.math.answer`, for programs and documents."""

from cohort.rewards.verifiers.math.answer import *  # noqa: F403
