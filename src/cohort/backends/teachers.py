"""Who teaches: a model of its own, the policy or its reference, or a model at a server."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from cohort.backends.teacher_server import ServedTeacher
from cohort.learn.reference import Reference
from cohort.learn.teaching import Teacher, ask, of_teachers
from cohort.policy.load import Start, load_policy, load_tokenizer
from cohort.policy.policy import Policy
from cohort.settings import Policy as PolicyTable
from cohort.settings import Stage
from cohort.types import Batch, UserError
from cohort.wording import shorten


@dataclass(frozen=True, slots=True)
class Loaded:
    """A teacher that was loaded, frozen."""

    head: Policy

    def active(self) -> AbstractContextManager[Policy]:
        """The teacher itself."""
        return nullcontext(self.head)


@dataclass(frozen=True, slots=True)
class Itself:
    """The policy as its own teacher, or what it was: its reference."""

    policy: Policy
    reference: Reference | None

    def active(self) -> AbstractContextManager[Policy]:
        """The policy to ask."""
        return nullcontext(self.policy) if self.reference is None else self.reference.active()

    @property
    def head(self) -> Policy:
        """The one whose head its logits come from."""
        return self.policy if self.reference is None else self.reference.head


def open_teachers(stage: Stage, policy: Policy, reference: Reference | None) -> list[Teacher | ServedTeacher]:
    """The teachers of a stage, in the order of its table. Raises `UserError`."""
    if stage.kind == "self_distill":
        if policy.has_adapter and stage.asks_reference and stage.self_distillation.divergence != "sampled":
            head = policy.model.get_output_embeddings()
            if any(p.requires_grad for p in head.parameters()) or hasattr(head, "base_layer"):
                raise UserError(
                    "policy.lora trains the head of the model, so the reference's logits cannot be had beside it: "
                    'leave lm_head out of it, or set self_distillation.divergence = "sampled"'
                )
        return [Itself(policy, reference if stage.asks_reference else None)]
    found: list[Teacher | ServedTeacher] = []
    for name, table in stage.distillation.teacher.items():
        if table.url is not None:
            found.append(ServedTeacher(name, table))
            continue
        teacher = load_policy(table.model, trainable=False, dtype=table.dtype, compute=table.dtype)
        teacher.module.requires_grad_(False)
        teacher.refuse_classifier()
        refuse_other_tokenizer(name, table.model, teacher.tokenizer, policy.tokenizer)
        found.append(Loaded(teacher))
    return found


def taught(
    teachers: Sequence[Teacher | ServedTeacher], batch: Batch, tokens: int, temperature: float, states: bool
) -> Batch:
    """The batch with what its teachers say; with `states` also what a divergence over the vocabulary needs of them."""
    assert batch.lesson is not None
    logprobs = torch.full(batch.tokens.shape, torch.nan)
    first = torch.zeros(batch.tokens.shape, dtype=torch.bool)
    kept = [torch.zeros(0, 0)] * len(teachers)
    for number, seen, wanted in of_teachers(batch):
        teacher = teachers[number]
        if isinstance(teacher, ServedTeacher):
            logprobs[wanted], first[wanted] = teacher.ask(seen, wanted)
            continue
        logprobs[wanted], first[wanted], own = ask(teacher, seen, wanted, tokens, temperature)
        kept[number] = own if states else kept[number]
    lesson = replace(batch.lesson, first=first, states=tuple(kept))
    return replace(batch, teacher_logprobs=logprobs, lesson=lesson)


def check_teachers(stage: Stage, student: Any) -> None:
    """Refuse, before anything heavy loads, teachers whose tokenizer is not the `student`'s; None: it is not known yet,
    and what can be said of each teacher alone is.
    """
    for name, table in stage.distillation.teacher.items():
        if table.model.startswith("stage:"):  # it is not trained yet
            continue
        named = table.model if table.url is None else table.tokenizer or table.model
        own = load_tokenizer(PolicyTable(model=named), Start())
        if student is not None:
            refuse_other_tokenizer(name, table.model, own, student)


def refuse_other_tokenizer(name: str, model: str, teacher: Any, student: Any) -> None:
    """Raise `UserError` where a token of the student is another one to the teacher: its log-probs would be of other
    texts. Tokens that only the teacher has do no harm.
    """
    theirs, own = ({number: token for token, number in one.get_vocab().items()} for one in (teacher, student))
    other = next((number for number in sorted(own) if theirs.get(number) != own[number]), None)
    if other is not None:
        there = shorten(theirs[other]) if other in theirs else "not there"
        raise UserError(
            f"the teacher '{name}' ({model}) has another tokenizer than the student: token {other} is {there} to it "
            f"and {shorten(own[other])} to the student; take a teacher of the same family, or train on what it writes "
            '(kind = "sft")'
        )
