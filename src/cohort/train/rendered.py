"""Prompts as one model sees them."""

from __future__ import annotations

from itertools import islice
from typing import Any

from cohort.policy.facts import PolicyFacts
from cohort.settings import Stage
from cohort.tasks import Mixture, Renderer, Task, fit
from cohort.tasks import Prompts as TaskPrompts
from cohort.types import Prompt, UserError

__all__ = ["RenderedPrompts", "held_out_prompts", "prompt_limit", "refuse_long_prompts"]

LENGTHS_CHECKED = 20_000  # prompts whose length is looked at before the first step


def prompt_limit(stage: Stage, policy: PolicyFacts, evaluating: bool = False) -> int:
    """The longest prompt that leaves room for a completion (no limit is known: 2**31)."""
    context = policy.context
    longest, key = stage.rollout.max_tokens, "rollout.max_tokens"
    if evaluating and stage.evaluate.max_tokens is not None:
        longest, key = stage.evaluate.max_tokens, "evaluate.max_tokens"
    room = 2**31 if context is None else context - longest
    if room < 1:
        raise UserError(
            f"{key} = {longest} leaves no room for a prompt: the model has {context} positions. Lower {key}."
        )
    return min(room, stage.task.max_prompt_tokens or room)


class RenderedPrompts:
    """A task's prompts as one model sees them; None where the `too_long` rule drops one."""

    def __init__(self, prompts: TaskPrompts, renderer: Renderer, limit: int, too_long: Any):
        self._prompts, self._renderer = prompts, renderer
        self._limit, self._too_long = limit, too_long

    def __getitem__(self, index: int) -> Prompt | None:
        """The prompt with its tokens."""
        return fit(self._renderer.render(self._prompts[index]), self._limit, self._too_long)


def refuse_long_prompts(prompts: RenderedPrompts, source: TaskPrompts) -> None:
    """Look at the prompts' lengths before the first step, rather than meet a long one hours later. With
    `too_long = "error"`, reading a prompt that is too long raises.
    """
    known = source.ends() if isinstance(source, Mixture) else range(source.size or 0)
    for index in islice(known, LENGTHS_CHECKED):
        prompts[index]


def held_out_prompts(stage: Stage, task: Task, policy: PolicyFacts) -> tuple[list[Prompt], int]:
    """What evaluations ask: the first `evaluate.problems` held-out prompts, no question twice; and how many were left
    out as too long (whatever training does with such ones, unless it cuts them).
    """
    source, wanted = task.held_out, stage.evaluate.problems
    if source is None or not wanted:
        return [], 0
    rule = "drop" if stage.task.too_long == "error" else stage.task.too_long
    limit = prompt_limit(stage, policy, evaluating=True)
    prompts = RenderedPrompts(source, task.renderer(policy.tokenizer), limit, rule)
    found: dict[str, Prompt] = {}
    too_long = 0
    for index in range(source.size if source.size is not None else 20 * wanted):
        prompt = prompts[index]
        if prompt is None:
            too_long += 1
        else:
            found.setdefault(prompt.id, prompt)
        if len(found) == wanted:
            break
    return list(found.values()), too_long
