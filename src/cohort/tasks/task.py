"""A task: prompts to train on, prompts held out, how they are shown to the model, and which comes next.

task = open_task("train.jsonl", prompt="question", answer="answer", held_out=0.1)
task.train[0], task.held_out.size
rendered = task.renderer(tokenizer).render(task.train[0])
tickets = task.tickets(seed=0)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from cohort import settings
from cohort.seeds import derive_seed
from cohort.tasks.order.ledger import Ledger
from cohort.tasks.order.mixture import HeldOut, Mixture, Selection, Tickets, check_order, read_weights, weight_at
from cohort.tasks.prompts import Prompts, looked_at, place_of
from cohort.tasks.render import Renderer
from cohort.tasks.sources.base import FromPython
from cohort.tasks.sources.opening import DOMAIN, OpenSource, open_source
from cohort.types import Prompt, UserError

LOOKED_AT_OF_MADE = 100  # prompts of a source that makes them without end


@dataclass(frozen=True, slots=True)
class Task:
    """Prompts to train on and prompts held out (None: there are none), and the table that shows them."""

    table: settings.Task
    sources: tuple[OpenSource, ...]
    train: Prompts
    held_out: Prompts | None
    columns: tuple[str, ...]
    tools: tuple[Mapping[str, Any], ...] = ()  # JSON schemas, for the chat template

    def renderer(self, tokenizer: Any) -> Renderer:
        """The renderer of this task's template for a tokenizer."""
        return Renderer.of(self.table, tokenizer, self.tools)

    def tickets(self, seed: int, state: Mapping[str, Any] | None = None) -> Tickets:
        """What decides the order of the training prompts, from the beginning or from a saved state."""
        if isinstance(self.train, Mixture):
            return Selection.restore(state, self.train, seed) if state else Selection(self.train, seed)
        return Ledger.restore(state, self.train.size, seed) if state else Ledger(self.train.size, seed)

    def rows(self) -> Iterator[tuple[str, Prompt]]:
        """`(place, prompt)` of the first training and held-out prompts of every source: `train.jsonl:8`, `held-out
        prompt 3`. This is what a check before the run goes through, once; of prompts without end it has a few.
        """
        for source in self.sources:
            for name, prompts in (("training", source.train), ("held-out", source.held_out)):
                if prompts is None:
                    continue
                for index in range(LOOKED_AT_OF_MADE) if prompts.size is None else looked_at(prompts):
                    place = place_of(prompts, index, f"{name} prompt")
                    yield place, source.tagged(prompts[index])


class TaskFromPython(FromPython, settings.Task):
    """The table of a task that Python opens."""

    place = ("task",)


class _SourceFromPython(FromPython, settings.Source):
    """The table of one source of a mixture that Python opens."""

    place = ("task", "mixture", "NAME")


def open_task(source: Any, *, seed: int = 0, held_out_seed: int | None = None, **fields: Any) -> Task:
    """Open a source as a task. `fields` are the keys of a recipe's [task] table.

    `source` and `held_out` may also be a `datasets.Dataset`, a list of dicts or of `Prompt`. For Python alone there are
    `revision`, that of a dataset of the hub, and `answer_required`. `seed` and `held_out_seed` (the same, if not given)
    are for sources that make their problems. Raises UserError for what is wrong with the fields or with the rows.
    """
    return open_prompts(TaskFromPython(source=source, **fields), seed, seed if held_out_seed is None else held_out_seed)


def open_mixture(
    sources: Mapping[str, Mapping[str, Any]], *, seed: int = 0, held_out_seed: int | None = None, **fields: Any
) -> Task:
    """Open several sources as one task.

    `sources` has, by name, the fields that `open_task` takes for each, and its `weight`: a number, or numbers by the
    training step from which they hold. The name becomes the tag "domain" of its prompts.
    """
    if not sources or not all(sources):
        raise UserError("a mixture needs a source, and each of its sources a name that is not empty.")
    tables: dict[str, settings.Source] = {}
    for name, given in sources.items():
        with _blamed(name):
            tables[name] = _SourceFromPython(**given)
    table = TaskFromPython(source="mixture", mixture=tables, **fields)
    return open_prompts(table, seed, seed if held_out_seed is None else held_out_seed)


def open_prompts(table: settings.Task, seed: int, held_out_seed: int = 0) -> Task:
    """The prompts of a [task] table: what every stage that trains on prompts begins with.

    `seed` is for sources that make their problems. Theirs are held out by `held_out_seed`, which is the same in every
    run, so that runs can be compared. Raises UserError for whatever is wrong with the sources and their first rows.
    """
    if isinstance(table.held_out, settings.Task):  # the problems that another task holds out
        other, own = table.held_out, table.model_copy(update={"held_out": None})
        return replace(open_prompts(own, seed), held_out=open_prompts(other, seed, held_out_seed).held_out)
    if not table.mixture:
        source = open_source(table, seed, held_out_seed)
        check_order(source)
        plain = table.curriculum is None and table.adaptive is None
        return Task(table, (source,), source.train if plain else Mixture([source]), source.held_out, source.columns)
    opened = []
    for name, one in table.mixture.items():
        with _blamed(name):
            own = derive_seed(seed, "mixture", name)  # or two sources of one kind would make the same problems
            source = replace(open_source(one, own, held_out_seed, name), weights=read_weights(name, one.weight))
            check_order(source)
            opened.append(source)
    for step in sorted({start for source in opened for start, _ in source.weights}):
        if not any(weight_at(source.weights, step) for source in opened):
            raise UserError(f"every weight of the mixture is 0 from step {step} on; give one source a weight.")
    held_out = HeldOut(opened) if any(source.held_out is not None for source in opened) else None
    return Task(table, tuple(opened), Mixture(opened), held_out, _mixed_columns(opened))


@contextmanager
def _blamed(name: str) -> Iterator[None]:
    """Say which source of a mixture an error is about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"mixture {name}: {error}") from None


def _mixed_columns(sources: Sequence[OpenSource]) -> tuple[str, ...]:
    """The columns that prompts of a mixture may have. There is an answer where every source has one."""
    answer = ["answer"] if all(source.table.answer in source.columns for source in sources) else []
    tags = [name for source in sources for name in source.columns if name not in (source.question, "answer")]
    return tuple(dict.fromkeys(("prompt", *answer, *tags, DOMAIN)))
