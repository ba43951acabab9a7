"""The samplers of a cluster as one `Sampler`. What one that dies had not finished is drawn by its successor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from cohort.backends.cluster.actors import SamplerActor
from cohort.backends.cluster.door import Actor, Door, Lost
from cohort.backends.proving import Fingerprint
from cohort.settings import Stage
from cohort.types import Completion, SampleRequest, UserError
from cohort.wording import counted

CLOSING_S = 10.0  # that samplers have to end their servers; then they are killed, and the servers with them


class Samplers:
    """`blueprint` gives the learner's model as it is. Every sampler proves its weights whenever it takes some, so the
    driver holds no weights and has nothing to prove: it goes on meanwhile, and hears of it before anything is drawn.
    With `rollout.in_flight`, `take` is called while another thread is in `sample`.
    """

    apart = True

    def __init__(self, door: Door, stage: Stage, blueprint: Callable[[], bytes]):
        self._door, self._stage, self._blueprint = door, stage, blueprint
        self._actors: list[Actor | None] = [None] * stage.cluster.samplers
        self._claim: Fingerprint | None = None
        self._weights: Any = None  # the place in Ray's store of what `_claim` is of
        self._taking: list[tuple[int, Actor, Any]] = []  # who was given them, and where the answers will be
        self.version = 0
        self._alone = threading.RLock()  # held while actors begin, end and are given weights

    def take(self, claim: Fingerprint, weights: Any) -> None:
        """Give all samplers these weights, by their place in Ray's store. Raises `UserError` where one holds others; of
        those that draw nothing now, when they are to draw again.
        """
        self._settle()
        with self._alone:
            self._claim, self._weights = claim, weights
            for number, actor in enumerate(self._actors):
                if actor is not None:
                    self._taking.append((number, actor, actor.handle.load.remote(claim, weights)))
            self.version = claim.version
        if self._stage.rollout.in_flight != "off":
            self._settle()

    def _settle(self) -> None:
        """Hear of all samplers that they hold what they were given last."""
        with self._alone:
            taking, self._taking = self._taking, []
            for number, actor, ref in taking:
                try:
                    self._door.answer(ref, actor.who)
                except Lost:
                    self._drop(number, actor)

    def publish(self, version: int) -> None:
        """The backend has done so, see `take`."""
        assert version == self.version

    def fingerprint(self) -> str:
        """See `types.ProvingSampler`: what every sampler has shown that its weights have."""
        self._settle()
        return "" if self._claim is None else self._claim.digest

    def canary(self, prompt: Sequence[int], tokens: Sequence[int]) -> Sequence[float]:
        """See `types.ProvingSampler`."""
        self._settle()
        found: Sequence[float] = self._door.ask(self._there(0), "canary", prompt, tokens)
        return found

    def sample(self, requests: Iterable[SampleRequest]) -> Iterator[tuple[SampleRequest, tuple[Completion, ...]]]:
        """See `types.Sampler`. Raises `UserError` where samplers are lost more often than `cluster.retries` allows."""
        self._settle()
        wanted, count = list(requests), len(self._actors)
        left = {number: list(range(number, len(wanted), count)) for number in range(count)}
        begun: dict[int, list[int]] = {}  # what each sampler was asked for, in its order
        asked: dict[Any, tuple[int, Actor]] = {}
        failures = 0
        while any(left.values()):
            busy = {number for number, _ in asked.values()}
            for number in [one for one, own in left.items() if own and one not in busy]:
                actor: Actor | None = None
                try:
                    actor = self._there(number)
                    if number not in begun:
                        begun[number] = list(left[number])
                        self._door.ask(actor, "begin", [wanted[index] for index in begun[number]])
                    asked[actor.handle.more.remote()] = number, actor
                except Lost as lost:
                    failures = self._after(number, actor, lost, failures)
                    begun.pop(number, None)
            ready, _ = self._door.ray.wait(list(asked), num_returns=1, timeout=self._door.table.deadline_s)
            for ref in ready or list(asked):  # where none is ready all have had their time
                number, actor = asked.pop(ref)
                try:
                    if not ready:
                        limit = f"cluster.deadline_s = {self._door.table.deadline_s:g} s"
                        raise Lost(f"the driver waited for {actor.who}, which finished no group within {limit}")
                    place, completions = self._door.answer(ref, actor.who)
                except Lost as lost:
                    failures = self._after(number, actor, lost, failures)
                    begun.pop(number, None)
                    continue
                index = begun[number][place]
                left[number].remove(index)
                if not left[number]:
                    begun.pop(number)
                yield wanted[index], completions

    def close(self) -> None:
        """End them, and what they have started."""
        asked = [actor.handle.close.remote() for actor in self._actors if actor is not None]
        if asked:
            self._door.ray.wait(asked, num_returns=len(asked), timeout=CLOSING_S)
        for number, actor in enumerate(self._actors):
            self._drop(number, actor)

    def _there(self, number: int) -> Actor:
        """A sampler that has the weights; a new one where it was lost."""
        if (actor := self._actors[number]) is not None:
            return actor
        with self._alone:
            if (actor := self._actors[number]) is None:
                at_once = 1 if self._stage.rollout.in_flight == "off" else 2  # `load` while there is `more`
                actor = self._door.start(SamplerActor, f"sampler {number}", at_once=at_once)
                self._door.begin(actor, "open", self._blueprint(), self._stage)
                if self._claim is not None:  # the learner may have gone on since
                    weights, self._weights = self._weights, None  # what a node took away is not asked for again
                    self._door.ask(actor, "load", self._claim, weights)
                    self._weights = weights
                self._actors[number] = actor
            return actor

    def _after(self, number: int, actor: Actor | None, lost: Lost, failures: int) -> int:
        """One failure more. Raises `UserError` where that is too many."""
        self._drop(number, actor)
        if failures == self._door.table.retries:
            raise UserError(
                f"stage '{self._stage.name}', weights of step {self.version}: {lost}, and samplers were lost "
                f"{counted(failures + 1, 'time')} while these groups were drawn (cluster.retries)"
            )
        return failures + 1

    def _drop(self, number: int, actor: Actor | None) -> None:
        with self._alone:
            if actor is not None and self._actors[number] is actor:  # else somebody else has noticed, too
                self._door.end(actor)
                self._actors[number] = None
