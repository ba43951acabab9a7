"""The rows whose gold answers are checked before a run, each with the place that it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice

from cohort.tasks import Mixture, Prompts, Task
from cohort.tasks.prompts import Part, RowPrompts
from cohort.types import Prompt

__all__ = ["gold_rows"]

CHECKED = 20_000  # of the training prompts, and of the held-out ones
CHECKED_OF_MADE = 100  # where prompts are made without end


def gold_rows(task: Task) -> Iterator[tuple[str, Prompt]]:
    """`(place, prompt)` of the first training and held-out prompts: `train.jsonl:8`, `held-out prompt 3`."""
    for name, prompts in (("training", task.train), ("held-out", task.held_out)):
        if prompts is not None:
            for number, index in enumerate(islice(_indices(prompts), CHECKED), start=1):
                yield _place(prompts, index) or f"{name} prompt {number}", prompts[index]


def _indices(prompts: Prompts) -> Iterable[int]:
    """All there are; some of those without end, and of a mixture also all rows."""
    if prompts.size is not None:
        return range(prompts.size)
    rows = prompts.ends() if isinstance(prompts, Mixture) else ()
    return chain(range(CHECKED_OF_MADE), rows)


def _place(prompts: Prompts, index: int) -> str | None:
    if isinstance(prompts, Mixture):
        source, _, within = prompts.origin(index)
        train = prompts.sources[source].train
        return None if train.size is None else _place(train, within % train.size)
    if isinstance(prompts, Part):
        return _place(prompts.whole, int(prompts.indices[index]))
    return prompts.rows.place(index) if isinstance(prompts, RowPrompts) else None
