"""A model that a command looks at and does not train: loaded, and sampled from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cohort.backends.base import open_sampler
from cohort.commands.door import argument
from cohort.environments import World
from cohort.policy.load import load_policy, locate
from cohort.policy.policy import Policy
from cohort.record.manifest import refuse_damaged
from cohort.settings import Stage
from cohort.types import InfrastructureError, Prompt, Rollout, SampleRequest, Sampling


def load_model(model: str, **fields: Any) -> Policy:
    """The model that the command line names; `fields` are those of `load_policy`. One that is damaged, or cannot be
    read, is a wrong argument.
    """
    with argument():
        refuse_damaged(Path(locate(model)))
        return load_policy(model, trainable=False, **fields)


def play_group(
    policy: Policy, stage: Stage, world: World, prompt: Prompt, count: int, seed: int, sampling: Sampling
) -> tuple[Sampling, Sequence[Rollout]]:
    """`count` completions of one prompt, and how they were sampled: no longer than the model's context leaves room for.
    Raises `InfrastructureError` where the world of the stage failed.
    """
    room = max((policy.max_context or 2**31) - len(prompt.tokens), 1)
    sampling = replace(sampling, max_tokens=min(sampling.max_tokens, room))
    play = world.player(policy.tokenizer, policy.eos_ids, open_sampler(policy, stage.rollout))
    _, played = next(iter(play([SampleRequest(0, prompt.tokens, count, seed, sampling)], {0: prompt})))
    if isinstance(played, InfrastructureError):
        raise played
    return sampling, played
