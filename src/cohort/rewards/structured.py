"""Another name of `cohort.rewards.verifiers.structured.structured`, for programs and documents."""

from cohort.rewards.verifiers.structured.structured import *  # noqa: F403
