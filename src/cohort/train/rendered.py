"""What a stage says of the lengths of prompts, for one model."""

from __future__ import annotations

from cohort.policy.facts import PolicyFacts
from cohort.settings import Stage
from cohort.tasks import Task, rendered
from cohort.types import Prompt

__all__ = ["held_out_prompts", "prompt_limit"]


def prompt_limit(stage: Stage, policy: PolicyFacts, evaluating: bool = False) -> int:
    """The longest prompt that leaves room for a completion (no limit is known: 2**31)."""
    longest, key = stage.rollout.max_tokens, "rollout.max_tokens"
    if evaluating and stage.evaluate.max_tokens is not None:
        longest, key = stage.evaluate.max_tokens, "evaluate.max_tokens"
    return rendered.prompt_limit(policy.context, longest, stage.task.max_prompt_tokens, key)


def held_out_prompts(stage: Stage, task: Task, policy: PolicyFacts) -> tuple[list[Prompt], int]:
    """What evaluations ask: the first `evaluate.problems` held-out prompts, no question twice; and how many were left
    out because they are too long, whatever training does with such ones.
    """
    limit = prompt_limit(stage, policy, evaluating=True)
    renderer = task.renderer(policy.tokenizer)
    return rendered.held_out_prompts(task.held_out, renderer, limit, stage.task.too_long, stage.evaluate.problems)
