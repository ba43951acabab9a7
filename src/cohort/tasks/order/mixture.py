"""Several sources as one, each with a weight that may change by step, a curriculum over levels, adaptive sampling.

A `Mixture` is the prompts. Every source at every level is an arm, and prompt number `i` of a mixture of K arms is
prompt `i // K` of arm `i % K`, so one number still says everything.

A `Selection` says which prompt comes next. It hands out tickets as a `Ledger` does, and is told the pass rate of each
when it is finished. There is no chance in it: weights are met by giving each ticket to the source that is furthest
behind its share, so any stretch of tickets has the shares of the weights, to within one prompt. The prompt of a ticket
in flight is kept with the ticket, because the levels and rests that decided it may have changed since.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cohort.seeds import derive_seed
from cohort.tasks.order.ledger import Ledger, Ticket
from cohort.tasks.order.pass_rates import Ladder, Rests
from cohort.tasks.sources.opening import OpenSource
from cohort.types import Prompt, UserError

Weights = tuple[tuple[int, float], ...]  # (from this step on, weight), steps ascending


class Mixture:
    """The training prompts of several sources."""

    size: int | None = None

    def __init__(self, sources: Sequence[OpenSource]) -> None:
        self.sources = tuple(sources)
        self.arms = [(number, level) for number, source in enumerate(self.sources) for level in source.levels]

    def __getitem__(self, index: int) -> Prompt:
        """The prompt number `index`."""
        source, level, within = self.origin(index)
        return self.sources[source].prompt(level, within)

    def place(self, source: int, level: int | None, index: int) -> int:
        """The number of prompt `index` of a source and level."""
        return index * len(self.arms) + self.arms.index((source, level))

    def ends(self) -> Iterator[int]:
        """The numbers of all prompts of the sources that have an end."""
        for number, source in enumerate(self.sources):
            for index in range(source.train.size or 0):
                yield self.place(number, None, index)

    def origin(self, index: int) -> tuple[int, int | None, int]:
        """(source, level, index in it): the reverse of `place`."""
        within, arm = divmod(index, len(self.arms))
        return (*self.arms[arm], within)


class HeldOut:
    """The held-out prompts of several sources in turns, so that the first N have a fair share of each source."""

    def __init__(self, sources: Sequence[OpenSource]) -> None:
        self.sources = [source for source in sources if source.held_out is not None]
        sizes = [source.held_out.size for source in self.sources if source.held_out is not None]
        known = [size for size in sizes if size is not None]
        self.size = sum(known) if len(known) == len(sizes) else None
        self.turns = None  # where all sources have an end: (index in the source, source), and no source begins anew
        if self.size is not None:
            self.turns = sorted((within, number) for number, size in enumerate(known) for within in range(size))

    def __getitem__(self, index: int) -> Prompt:
        """The prompt number `index`. Beside a source without an end, one with an end begins anew."""
        within, number = divmod(index, len(self.sources)) if self.turns is None else self.turns[index]
        source = self.sources[number]
        assert source.held_out is not None
        size = source.held_out.size
        return source.tagged(source.held_out[within if size is None else within % size])


def read_weights(name: str, given: float | Mapping[str, float]) -> Weights:
    """A weight, or weights by the step from which they hold: `{0: 1.0, 200: 0.25}`."""
    try:
        by_step = {0: given} if isinstance(given, (int, float)) else {int(step): w for step, w in given.items()}
    except ValueError:
        by_step = {}
    if not by_step or min(by_step) < 0:
        raise UserError(f"the weight of {name!r} is a number of at least 0, or such numbers by step, not {given!r}.")
    return tuple(sorted({0: 0.0, **by_step}.items()))


def weight_at(weights: Weights, step: int) -> float:
    """The weight that holds at a step."""
    return next(weight for start, weight in reversed(weights) if start <= step)


class _Order:
    """The order of one source: through its epochs, on the level of its curriculum, past the prompts that rest."""

    def __init__(self, source: OpenSource, seed: int) -> None:
        curriculum, adaptive = source.table.curriculum, source.table.adaptive
        self.size = source.train.size
        self.order = Ledger(self.size, seed)
        self.ladder = None if curriculum is None else Ladder(source.levels, curriculum)
        self.rests = None if adaptive is None else Rests(adaptive)
        self.next = 0
        self.epoch = 0

    def draw(self) -> tuple[int, int | None, int]:
        """(epoch, level, index) of the next prompt."""
        while True:
            ticket = self.order.ticket(self.next)
            self.next, self.epoch = self.next + 1, ticket.epoch
            if self.rests is None or not self.rests.resting(ticket.index, ticket.epoch):
                level = None if self.ladder is None else self.ladder.next()
                return ticket.epoch, level, ticket.index

    def observe(self, epoch: int, level: int | None, index: int, rate: float) -> None:
        if self.ladder is not None and level is not None:
            self.ladder.observe(level, rate)
        if self.rests is not None:
            self.rests.observe(index, epoch, rate)

    def metrics(self) -> dict[str, float]:
        found = {} if self.ladder is None else {"level": float(self.ladder.level)}
        return found if self.rests is None else found | {"resting": float(self.rests.count(self.epoch))}

    def state(self) -> dict[str, Any]:
        saved = {name: part.state() for name, part in (("ladder", self.ladder), ("rests", self.rests)) if part}
        return {"size": self.size, "next": self.next, "epoch": self.epoch, **saved}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.next, self.epoch = state["next"], state["epoch"]
        for name, part in (("ladder", self.ladder), ("rests", self.rests)):
            if part is not None:
                part.restore(state[name])


class Selection:
    """Hands out tickets over a mixture. `ledger` knows which are in flight; `assigned`, the prompt of each of them."""

    def __init__(self, mixture: Mixture, seed: int) -> None:
        self.mixture, self.seed = mixture, seed
        self.ledger = Ledger(None, seed)
        seeds = [derive_seed(seed, "source", source.name) if source.name else seed for source in mixture.sources]
        self.orders = [_Order(source, own) for source, own in zip(mixture.sources, seeds)]
        self.behind = [0.0] * len(self.orders)  # prompts that a source is behind its share
        self.assigned: dict[int, Ticket] = {}

    def issue(self, step: int = 0) -> Ticket:
        """The next ticket, with the weights of `step`; first those that a killed run left in flight."""
        number = self.ledger.issue().number
        if number not in self.assigned:
            source = self._furthest_behind(step)
            epoch, level, index = self.orders[source].draw()
            self.assigned[number] = Ticket(number, epoch, self.mixture.place(source, level, index))
        return self.assigned[number]

    def _furthest_behind(self, step: int) -> int:
        weights = [weight_at(source.weights, step) for source in self.mixture.sources]
        for number, weight in enumerate(weights):
            self.behind[number] += weight / sum(weights)
        chosen = max((n for n, weight in enumerate(weights) if weight), key=lambda n: (self.behind[n], -n))
        self.behind[chosen] -= 1
        return chosen

    def claim(self, number: int) -> None:
        """Ticket `number`, in flight when the run was killed, needs no handing out: its group was saved."""
        self.ledger.claim(number)

    def ticket(self, number: int) -> Ticket:
        """What a ticket in flight stands for."""
        return self.assigned[number]

    def finish(self, number: int, disposition: str, pass_rate: float | None = None) -> None:
        """Ticket `number` is done for good. `pass_rate`: the share of its completions that were right, if known."""
        self.ledger.finish(number, disposition)
        ticket = self.assigned.pop(number)
        if pass_rate is not None:
            source, level, index = self.mixture.origin(ticket.index)
            self.orders[source].observe(ticket.epoch, level, index, pass_rate)

    def metrics(self) -> dict[str, float]:
        """The level of every curriculum and the number of resting prompts, by metric name."""
        return {
            f"domain/{source.name}/{name}" if source.name else f"task/{name}": value
            for source, order in zip(self.mixture.sources, self.orders)
            for name, value in order.metrics().items()
        }

    def state(self) -> dict[str, Any]:
        """Everything to go on from, as JSON takes it."""
        return {
            "ledger": self.ledger.state(),
            "assigned": [[t.number, t.epoch, t.index] for _, t in sorted(self.assigned.items())],
            "behind": self.behind,
            "sources": {source.name: order.state() for source, order in zip(self.mixture.sources, self.orders)},
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any], mixture: Mixture, seed: int) -> Selection:
        """The selection of a saved state, over the same sources and with the same seed as before."""
        selection = cls(mixture, seed)
        before = {name: saved["size"] for name, saved in state["sources"].items()}
        now = {source.name: source.train.size for source in mixture.sources}
        if before != now:
            raise UserError(
                f"this run cannot be continued on other prompts (the sources and their sizes were {before} and are "
                f"{now}). Restore the sources, or start a new run."
            )
        selection.ledger = Ledger.restore(state["ledger"], None, seed)
        selection.assigned = {number: Ticket(number, epoch, index) for number, epoch, index in state["assigned"]}
        selection.behind = list(state["behind"])
        for source, order in zip(mixture.sources, selection.orders):
            order.restore(state["sources"][source.name])
        return selection


Tickets = Ledger | Selection  # what decides which prompt comes next


def check_order(source: OpenSource) -> None:
    """Refuse a curriculum or adaptive sampling where it has nothing to work on, or where its settings contradict."""
    name, train = source.table.source, source.train
    curriculum, adaptive = source.table.curriculum, source.table.adaptive
    if curriculum is not None:
        levels = getattr(train, "levels", None) if train.size is None else None
        if levels is None:
            fixed = source.table.limit is not None
            why = "limit makes a fixed list of prompts; remove it" if fixed else "this source has none; remove it"
            raise UserError(
                f"a curriculum goes through the levels of word_problems, arithmetic or a reasoning_gym task; {name!r} "
                f"cannot have one: {why}."
            )
        if len(levels) < 2:
            raise UserError(f"a curriculum needs two levels or more to go through; {name!r} has {list(levels)}.")
        Ladder(levels, curriculum)
    if adaptive is not None:
        if train.size is None:
            raise UserError(
                f"adaptive sampling needs prompts that come again, and {name!r} has no end: keep the first N with "
                "limit = N, or use a curriculum."
            )
        Rests(adaptive)
