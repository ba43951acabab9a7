"""What teachers are shown of a step, and what comes of it: log-probs of its groups, and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from cohort.algorithms.objectives import Objective
from cohort.backends.base import Backend
from cohort.frozen_array import FrozenArray
from cohort.learn.batch import collate
from cohort.policy.policy import PolicyFacts
from cohort.settings import Distill, SelfDistill, Stage
from cohort.tasks import Renderer
from cohort.types import Batch, Group, Lesson, Prompt, Rollout, UserError
from cohort.wording import shorten


def teach(
    stage: Stage, objective: Objective, backend: Backend, groups: Sequence[Group]
) -> tuple[list[Group], dict[str, float]]:
    """The groups with what their teachers say of each token, and the numbers of it. A completion that is cut off is
    scored like any other.
    """
    if not groups:
        return [], {}
    batch = collate(groups, replace(objective, truncated="keep"), stage.rollout.max_tokens)
    batch = backend.score(replace(batch, lesson=lesson(stage, backend.facts, groups)), "teacher")
    return with_teachers(groups, [batch]), teacher_metrics(stage, [batch])


def lesson(stage: Stage, facts: PolicyFacts, groups: Sequence[Group]) -> Lesson:
    """Who speaks of each rollout, and which prompt it follows there."""
    if stage.kind == "distill":
        own = [(group.prompt.tokens, route(stage.distillation, group.prompt)) for group in groups]
        seen = [one for one, group in zip(own, groups, strict=True) for _ in group.rollouts]
    else:
        renderer = Renderer.of(stage.task, facts.tokenizer)
        seen = [_shown_more(stage, facts, renderer, group, i) for group in groups for i in range(len(group.rollouts))]
    prompts: dict[Sequence[int], int] = {}
    owner = [prompts.setdefault(tuple(tokens), len(prompts)) for tokens, _ in seen]
    return Lesson(tuple(prompts), torch.tensor(owner), torch.tensor([teacher for _, teacher in seen]))


def route(table: Distill, prompt: Prompt) -> int:
    """Which of the teachers speaks of the completions of a prompt. Raises `UserError` for a prompt that has none."""
    names = list(table.teacher)
    if table.column is None:
        return 0
    name = prompt.tags.get(table.column)
    if str(name) not in names:  # names are keys of a table, and so text
        raise UserError(
            f"the prompt {prompt.id} has {shorten(name)} in the column '{table.column}' (distillation.column), and no "
            f"teacher of that name is there; there is {', '.join(names)}"
        )
    return names.index(str(name))


def _shown_more(
    stage: Stage, facts: PolicyFacts, renderer: Renderer, group: Group, member: int
) -> tuple[Sequence[int], int]:
    """The prompt of a rollout with a solution or feedback before its question, and the teacher 0; the prompt itself and
    no teacher (-1) where there is nothing to show, or no room.
    """
    shown = context_of(stage.self_distillation, stage.task.answer, group, member)
    if shown is not None:
        tokens = renderer.render(_before_question(shown, group.prompt)).tokens
        if facts.context is None or len(tokens) + len(group.rollouts[member].tokens) <= facts.context:
            return tokens, 0
    return group.prompt.tokens, -1


def context_of(table: SelfDistill, answer: str, group: Group, member: int) -> str | None:
    """What the teacher is shown before the question: the first right completion of the others, a column of the row, or
    why this completion was paid what it was; None where there is none of these.
    """
    if table.context == "column":
        value = group.prompt.answer if table.column in ("answer", answer) else group.prompt.tags.get(table.column)
        if value is None:
            raise UserError(
                f"the prompt {group.prompt.id} has nothing in the column '{table.column}' (self_distillation.column)"
            )
        return table.show_solution.replace("{}", str(value))
    right = (
        rollout
        for other, (rollout, accuracy) in enumerate(zip(group.rollouts, group.accuracy, strict=True))
        if other != member and accuracy >= table.threshold
    )
    if (found := next(right, None)) is not None:
        return table.show_solution.replace("{}", _solution(found, table.thoughts))
    labels = (of[member] for of in group.labels.values() if of[member] is not None)
    label = next(labels, None) if table.feedback else None
    return None if label is None else table.show_feedback.replace("{}", str(label).replace("_", " "))


def _solution(rollout: Rollout, thoughts: bool) -> str:
    return (rollout.text if thoughts else rollout.text.rpartition("</think>")[2]).strip()


def _before_question(shown: str, prompt: Prompt) -> Prompt:
    """The prompt whose last question has a text before it."""
    if prompt.messages is None:
        return replace(prompt, text=f"{shown}\n\n{prompt.text}", tokens=())
    messages = [dict(message) for message in prompt.messages]
    at = max(index for index, message in enumerate(messages) if message.get("role") == "user")
    messages[at]["content"] = f"{shown}\n\n{messages[at]['content']}"
    return replace(prompt, messages=tuple(messages), tokens=())


def with_teachers(groups: Sequence[Group], batches: Sequence[Batch]) -> list[Group]:
    """The groups with the log-probs of their teachers; `batches` are those of the groups, in their order."""
    rows = (FrozenArray(row.numpy()) for batch in batches for row in _rows(batch))
    return [group.with_(teacher_logprobs=tuple(next(rows) for _ in group.rollouts)) for group in groups]


def _rows(batch: Batch) -> tuple[torch.Tensor, ...]:
    assert batch.teacher_logprobs is not None
    return batch.teacher_logprobs.split(batch.lengths.tolist())


def heard(groups: Sequence[Group]) -> list[Group]:
    """The groups, for a loss that is nothing but a teacher's: of a rollout of which none speaks no token counts."""

    def of(group: Group) -> Group:
        silent = [bool(np.isnan(np.asarray(row)).all()) for row in group.teacher_logprobs]
        if not any(silent):
            return group
        rollouts = zip(group.rollouts, silent, strict=True)
        return group.with_(rollouts=tuple(replace(r, mask=(False,) * len(r.mask)) if no else r for r, no in rollouts))

    return [of(group) for group in groups]


def teacher_metrics(stage: Stage, batches: Sequence[Batch]) -> dict[str, float]:
    """How far the student that sampled is from its teachers: a mean over the tokens of which one speaks."""
    found: dict[str, Any] = {}
    names = list(stage.distillation.teacher) if stage.kind == "distill" else []
    apart, first, who = (torch.cat(of) for of in zip(*map(_said, batches), strict=True))
    found |= _means("teacher", apart, first)
    read = [sum(_read(batch, number) for batch in batches) for number in range(max(len(names), 1))]
    for number, name in enumerate(names if len(names) > 1 else ()):
        found |= _means(f"teacher/{name}", apart[who == number], first[who == number])
        found[f"teacher/{name}/tokens"] = float(read[number])
    found["teacher/tokens"] = float(sum(read))
    rollouts = torch.cat([batch.lesson.teacher for batch in batches if batch.lesson is not None])
    return found | {"teacher/rollouts": (rollouts >= 0).double().mean().item()}


def _said(batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of the tokens of which a teacher speaks: how far the student's log-prob is above, whether it is the teacher's
    likeliest, and which teacher speaks.
    """
    assert batch.lesson is not None
    assert batch.lesson.first is not None
    assert batch.teacher_logprobs is not None
    known = batch.mask & ~batch.teacher_logprobs.isnan()
    apart = (batch.sampler_logprobs - batch.teacher_logprobs).double()[known]
    return apart, batch.lesson.first.double()[known], batch.lesson.teacher.repeat_interleave(batch.lengths)[known]


def _read(batch: Batch, teacher: int) -> int:
    """The tokens that a teacher goes through: what it speaks of, and each prompt before that once."""
    assert batch.lesson is not None
    own = batch.lesson.teacher == teacher
    prompts = (len(batch.lesson.prompts[owner]) for owner in batch.lesson.group[own].unique().tolist())
    return sum(prompts) + int(batch.lengths[own].sum())


def _means(prefix: str, apart: torch.Tensor, first: torch.Tensor) -> Mapping[str, float]:
    return {f"{prefix}/kl": apart.mean().item(), f"{prefix}/agreement": first.mean().item()}
