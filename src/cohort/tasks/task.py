"""A task: prompts to train on, prompts held out, how they are shown to the model, and which comes next.

task = open_task("train.jsonl", prompt="question", answer="answer", held_out=0.1)
task.train[0], task.held_out.size
rendered = task.renderer(tokenizer).render(task.train[0])
tickets = task.tickets(seed=0)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cohort.seeds import derive_seed
from cohort.tasks.adaptive import Adaptive
from cohort.tasks.columns import AnswerFormat
from cohort.tasks.curriculum import Curriculum
from cohort.tasks.ledger import Ledger, Tickets
from cohort.tasks.mixture import DOMAIN, HeldOut, Mixture, Source, weight_at
from cohort.tasks.opening import first, open_source
from cohort.tasks.prompts import Prompts, question_share
from cohort.tasks.render import TEMPLATES, Renderer, Template
from cohort.tasks.selection import Selection
from cohort.types import UserError

__all__ = ["Task", "open_mixture", "open_task"]


@dataclass(frozen=True, slots=True)
class Task:
    """Prompts to train on and prompts held out (None: there are none), and the template that shows them."""

    train: Prompts
    held_out: Prompts | None
    columns: tuple[str, ...]
    template: Template = "chat"
    system: str | None = None
    split_by_hash: bool = False  # one question is then never on both sides
    tools: tuple[Mapping[str, Any], ...] = ()  # JSON schemas, for the chat template
    environments: Mapping[str, str] = field(default_factory=dict)  # by source: which one must play its conversations

    def renderer(self, tokenizer: Any) -> Renderer:
        """The renderer of this task's template for a tokenizer."""
        return Renderer(tokenizer, self.template, self.system, self.tools)

    def tickets(self, seed: int, state: Mapping[str, Any] | None = None) -> Tickets:
        """What decides the order of the training prompts, from the beginning or from a saved state."""
        if isinstance(self.train, Mixture):
            return Selection.restore(state, self.train, seed) if state else Selection(self.train, seed)
        return Ledger.restore(state, self.train.size, seed) if state else Ledger(self.train.size, seed)

    def overlap(self, at_most: int = 100_000) -> int:
        """How many held-out questions are also trained on (looking at no more than `at_most` of each)."""
        if isinstance(self.train, Mixture):
            parts = [(s.train, s.held_out) for s in self.train.sources if not s.split_by_hash]
        else:
            parts = [] if self.split_by_hash else [(self.train, self.held_out)]
        return sum(shared(train, held_out, at_most) for train, held_out in parts if held_out is not None)


def shared(train: Prompts, held_out: Prompts, at_most: int) -> int:
    """How many of the first held-out questions are among the first training ones. What is made without end has none."""
    if train.size is None or held_out.size is None:
        return 0
    trained = {question_share(prompt) for prompt in first(train, at_most)}
    return sum(question_share(prompt) in trained for prompt in first(held_out, at_most))


def open_task(
    source: Any,
    *,
    prompt: str = "prompt",
    answer: str = "answer",
    held_out: Any = None,
    messages: str | None = None,
    split: str = "train",
    held_out_split: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    answer_format: AnswerFormat = "plain",
    answer_required: bool = False,
    system: str | None = None,
    template: Template = "chat",
    levels: Sequence[int] | None = None,
    args: Mapping[str, Any] | None = None,
    curriculum: Curriculum | None = None,
    adaptive: Adaptive | None = None,
    seed: int = 0,
    held_out_seed: int | None = None,
    limit: int | None = None,
) -> Task:
    """Open a source as a task.

    `source`: "word_problems", "reasoning_gym:TASK", "verifiers:PACKAGE", a file, a directory, a hub id, a
    `datasets.Dataset`, a list of dicts or of Prompts. `prompt` and `answer` name columns; all others become tags. A
    prompt may be text or a list of messages.
    `held_out`: another source, or a share of this one (split by a hash of the question, the same in every run);
    `held_out_split`: another split, of the held-out source if there is one ("test" by default) or else of this one.
    `levels`, `seed` and `held_out_seed` (the same, if not given) are for sources that make their problems, `args` for
    the configuration of a reasoning-gym task or a verifiers package. `limit` keeps the first so many training prompts.
    A `curriculum` moves through the levels, `adaptive` lets prompts without signal rest.
    """
    check_template(template)
    opened = open_source(
        source,
        prompt=prompt,
        answer=answer,
        held_out=held_out,
        messages=messages,
        split=split,
        held_out_split=held_out_split,
        config=config,
        revision=revision,
        answer_format=answer_format,
        answer_required=answer_required,
        levels=levels,
        args=args,
        limit=limit,
        curriculum=curriculum,
        adaptive=adaptive,
        seed=seed,
        held_out_seed=held_out_seed,
    )
    plain = curriculum is None and adaptive is None
    train = opened.train if plain else Mixture([opened])
    kept = opened.held_out, opened.columns
    environments = {source: opened.environment} if opened.environment else {}
    return Task(train, *kept, template, system, opened.split_by_hash, environments=environments)


def open_mixture(
    sources: Mapping[str, Mapping[str, Any]],
    *,
    system: str | None = None,
    template: Template = "chat",
    seed: int = 0,
    held_out_seed: int | None = None,
) -> Task:
    """Open several sources as one task.

    `sources` has the arguments of `open_task` for each by name, and its `weight`: a number, or numbers by the training
    step from which they hold. The name becomes the tag "domain" of its prompts.
    """
    check_template(template)
    if not sources:
        raise UserError("a mixture needs a source; it has none.")
    opened = []
    for name, options in sources.items():
        if not name:
            raise UserError("every source of a mixture has a name, which is not empty.")
        try:
            own = derive_seed(seed, "mixture", name)  # or two sources of one kind would make the same problems
            opened.append(open_source(**options, name=name, seed=own, held_out_seed=held_out_seed))
        except UserError as error:
            raise UserError(f"mixture {name}: {error}") from None
    for step in sorted({start for source in opened for start, _ in source.weights}):
        if not any(weight_at(source.weights, step) for source in opened):
            raise UserError(f"every weight of the mixture is 0 from step {step} on; give one source a weight.")
    held_out = HeldOut(opened) if any(source.held_out is not None for source in opened) else None
    named = zip((options["source"] for options in sources.values()), opened, strict=True)
    environments = {source: one.environment for source, one in named if one.environment}
    return Task(Mixture(opened), held_out, mixed_columns(opened), template, system, environments=environments)


def mixed_columns(sources: Sequence[Source]) -> tuple[str, ...]:
    """The columns that prompts of a mixture may have. There is an answer where every source has one."""
    answer = ["answer"] if all(source.answer in source.columns for source in sources) else []
    tags = [name for source in sources for name in source.columns if name not in (source.question, "answer")]
    return tuple(dict.fromkeys(("prompt", *answer, *tags, DOMAIN)))


def check_template(template: str) -> None:
    """Refuse a word that is not one of the choices."""
    if template not in TEMPLATES:
        raise UserError(f"template is one of {', '.join(TEMPLATES)}, not {template!r}.")
