"""Expert rows: demonstrations of a step's own prompts, for a term of the loss that is of them (CHORD 2508.11408)."""

from __future__ import annotations

from collections.abc import Sequence

from cohort.algorithms.objectives import Objective
from cohort.learn.batch import collate
from cohort.policy.policy import PolicyFacts
from cohort.settings import Stage
from cohort.tasks import Renderer
from cohort.train.sft import encoded
from cohort.types import Batch, Group, Prompt, Rollout, UserError


def expert_batch(stage: Stage, facts: PolicyFacts, objective: Objective, groups: Sequence[Group]) -> Batch:
    """The demonstrations of the groups' prompts, one each. Raises `UserError` for a prompt without one."""
    renderer = Renderer.of(stage.task, facts.tokenizer)
    rows = []
    for group in groups:
        what = f"the demonstration of prompt {group.prompt.id}"
        begins, tokens, mask = encoded(renderer, group.prompt, _text(stage, group.prompt), facts, None, what)
        rollout = Rollout(tokens, mask, (0.0,) * len(tokens), 0, "stop", "")
        rows.append(Group(group.ticket, Prompt(group.prompt.id, text="", tokens=begins), (rollout,)))
    return collate(rows, objective, stage.rollout.max_tokens)


def _text(stage: Stage, prompt: Prompt) -> str:
    column = stage.task.completion
    found = prompt.answer if column in ("answer", stage.task.answer) else prompt.tags.get(column)
    if not isinstance(found, str) or not found:
        raise UserError(
            f"the prompt {prompt.id} has no demonstration in the column '{column}' (task.completion), and "
            "objective.extras has a term of expert rows: name the column that holds one, or leave that term out"
        )
    return found
