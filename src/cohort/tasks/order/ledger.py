"""Which prompts a run has consumed: a ledger of tickets, not a cursor.

Ticket k is prompt `k % n` of the permutation of epoch `k // n`, so a ticket's number says everything about it. A cursor
would lose the tickets that were in flight when a run was killed; the ledger knows every ticket that was handed out and
not finished, and hands these out again first.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cohort.seeds import derive_seed, generator
from cohort.types import UserError


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to one prompt: the `index` of the source, in pass `epoch` over it."""

    number: int
    epoch: int
    index: int


def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of an epoch. Sorted raw 64-bit words: NumPy keeps those for ever, but not `Generator.permutation`."""
    keys = generator(derive_seed(seed, "shuffle", epoch)).bit_generator.random_raw(size)
    return np.argsort(keys, kind="stable")


class Ledger:
    """Hands out tickets 0, 1, 2, ... and remembers which came back.

    `size` is the number of prompts, or None for a source without an end (then the index is the ticket's number).
    """

    def __init__(self, size: int | None, seed: int, shuffle: bool = True) -> None:
        if size is not None and size < 1:
            raise UserError(f"a run needs at least one prompt; the source has {size}.")
        self.size, self.seed, self.shuffle = size, seed, shuffle
        self.next = 0
        self.in_flight: set[int] = set()  # handed out and not finished, those waiting below included
        self.waiting: deque[int] = deque()  # in flight when the run was killed; handed out again first
        self.counts: Counter[str] = Counter()
        self.orders: dict[int, np.ndarray] = {}  # the permutations of this epoch and the one before

    @property
    def finished(self) -> int:
        """How many tickets are finished."""
        return sum(self.counts.values())

    def issue(self, step: int = 0) -> Ticket:
        """The next ticket: first those that a killed run left in flight, in order, then new ones. The order is the same
        at every `step`.
        """
        if self.waiting:
            return self.ticket(self.waiting.popleft())
        number, self.next = self.next, self.next + 1
        self.in_flight.add(number)
        return self.ticket(number)

    def claim(self, number: int) -> None:
        """Ticket `number`, in flight when the run was killed, needs no handing out: its group was saved."""
        self.waiting.remove(number)

    def finish(self, number: int, disposition: str, pass_rate: float | None = None) -> None:
        """Ticket `number` is done for good; `disposition` says how it ended. `pass_rate` changes nothing here."""
        if number not in self.in_flight or number in self.waiting:
            raise ValueError(f"ticket {number} is not in flight: it was never issued, or is already finished")
        self.in_flight.remove(number)
        self.counts[disposition] += 1

    def ticket(self, number: int) -> Ticket:
        """What ticket `number` stands for, whether or not it was issued."""
        if self.size is None:
            return Ticket(number, 0, number)
        epoch, position = divmod(number, self.size)
        return Ticket(number, epoch, int(self.order(epoch)[position]) if self.shuffle else position)

    def order(self, epoch: int) -> np.ndarray:
        """The permutation of an epoch. Two are kept, because groups of the last epoch may still be asked for."""
        assert self.size is not None
        if epoch not in self.orders:
            while len(self.orders) >= 2:
                del self.orders[min(self.orders)]
            self.orders[epoch] = permutation(self.seed, epoch, self.size)
        return self.orders[epoch]

    def metrics(self) -> dict[str, float]:
        """Nothing that a person would want to watch."""
        return {}

    def state(self) -> dict[str, Any]:
        """Everything to go on from, as JSON takes it. Its length depends on what is in flight, not on the past."""
        return {
            "size": self.size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "next": self.next,
            "in_flight": sorted(self.in_flight),
            "counts": dict(sorted(self.counts.items())),
            "finished": self.finished,
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any], size: int | None, seed: int, shuffle: bool = True) -> Ledger:
        """The ledger of a saved state, for the same source, seed and order as before."""
        now = {"size": size, "seed": seed, "shuffle": shuffle}
        changed = [f"{name} was {state[name]} and is {value}" for name, value in now.items() if state[name] != value]
        if changed:
            raise UserError(
                f"this run cannot be continued on other prompts ({'; '.join(changed)}). "
                "Restore the source and the seed, or start a new run."
            )
        if state["next"] != state["finished"] + len(state["in_flight"]):
            raise ValueError(f"a ledger that does not add up: {dict(state)!r}")
        ledger = cls(size, seed, shuffle)
        ledger.next = state["next"]
        ledger.waiting = deque(state["in_flight"])
        ledger.in_flight = set(ledger.waiting)
        ledger.counts = Counter(state["counts"])
        return ledger
