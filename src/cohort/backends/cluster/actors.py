"""What runs in the actors' processes. Nothing here knows of Ray: a test may call it directly."""

from __future__ import annotations

import io
import pickle
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import cloudpickle
import torch

from cohort.algorithms.objectives import Objective
from cohort.backends.base import Origin, open_sampler
from cohort.backends.cluster.door import Lost, Surroundings
from cohort.backends.local import Local
from cohort.backends.proving import Fingerprint, claimed, other_weights, prove, proves
from cohort.engine.engine import InFlight
from cohort.learn.ranks import Ranks
from cohort.policy.policy import Policy
from cohort.policy.weights import fingerprint
from cohort.remote_code import in_workers
from cohort.rewards import RewardPool, ScoredGroup, ScoringItem
from cohort.settings import Stage
from cohort.types import Completion, InfrastructureError, SampleRequest, UserError
from cohort.wording import one_line

Weights = dict[str, Any]  # by name, arrays of the weights that are trained, as bytes of their type


class LearnerActor:
    """One rank of the learner: a `Local` backend that is never asked to sample."""

    def enter(self, surroundings: Surroundings, who: str) -> None:
        """Begin."""
        surroundings.enter(who)

    def meeting(self) -> str:
        """Where the ranks meet: an address of this node."""
        with socket.socket() as free:
            free.bind(("", 0))
            return f"{socket.gethostbyname(socket.gethostname())}:{free.getsockname()[1]}"

    def open(self, stage: Stage, objective: Objective, origin: Origin, rank: int, count: int, meeting: str) -> Any:
        """Load the model, and return the facts of its policy."""
        self._ranks = Ranks.join(rank, count, meeting, stage.cluster.deadline_s) if count > 1 else None
        self._backend = Local(stage, objective, replace(origin, base=origin.base if rank == 0 else None), self._ranks)
        self._facts = self._backend.facts
        return self._facts

    def call(self, name: str, *given: Any) -> Any:
        """Whatever a backend can do. Of ranks that fail together, one has died: a failure is the world's."""
        try:
            return getattr(self._backend, name)(*given)
        except (UserError, InfrastructureError):
            raise
        except Exception as error:
            if self._ranks is None:
                raise
            raise Lost(one_line(error)) from None

    def publish(self, version: int) -> tuple[Fingerprint | None, Weights | None]:
        """What a sampler has to show of the weights as they are; and the weights. None of ranks but the first."""
        whole = self._backend.whole()
        if whole is None:
            return None, None
        trained = {name: p.detach().cpu() for name, p in whole.module.named_parameters() if p.requires_grad}
        return claimed(whole, version, True), {name: _bytes(value) for name, value in trained.items()}

    def blueprint(self) -> bytes | None:
        """The whole model with its tokenizer, as a sampler begins with it."""
        whole = self._backend.whole()
        if whole is None:
            return None
        file = io.BytesIO()
        cloudpickle.dump((whole.module, whole.tokenizer, whole.compute_name, whole.mode), file)
        return file.getvalue()


class SamplerActor:
    """What `rollout.sampler` names, on a copy of the weights: the engine of a process, or a vLLM server of its own.

    With `rollout.in_flight`, `load` is called while another thread is in `more`, which takes the weights between two
    tokens.
    """

    def enter(self, surroundings: Surroundings, who: str) -> None:
        """Begin."""
        surroundings.enter(who)

    def open(self, blueprint: bytes, stage: Stage) -> None:
        """Make the model."""
        module, tokenizer, compute, mode = pickle.loads(blueprint)
        served = stage.rollout.sampler == "vllm"  # the accelerator is the server's
        self._policy = Policy(module.cpu() if served else module, tokenizer, compute, mode)
        self._stage, self._sampler = stage, open_sampler(self._policy, stage.rollout)
        if not proves(self._sampler):
            raise UserError(
                f"rollout.sampler = '{stage.rollout.sampler}' cannot show which weights it holds (`canary` of "
                "cohort.types.ProvingSampler), as a sampler of a cluster must"
            )
        self._drawn: Iterator[tuple[SampleRequest, tuple[Completion, ...]]] = iter(())
        self._turn = threading.Lock()  # held while the two below are looked at, and while weights are taken
        self._decoding = False
        self._arrived: tuple[Fingerprint, Weights | None, Future[None]] | None = None

    def load(self, claim: Fingerprint, weights: Weights | None) -> None:
        """Take weights, and show that they are those that the learner has. Raises `UserError` where they are not."""
        taken: Future[None] = Future()
        with self._turn:
            self._arrived = claim, weights, taken
            if not self._decoding:
                self._take_arrived()
        taken.result()

    def _take_arrived(self) -> None:
        """Take weights that wait for it, if there are any. Whoever brought them hears how it went; nobody draws from
        those that prove to be other ones.
        """
        if self._arrived is None:
            return
        claim, weights, taken = self._arrived
        self._arrived = None
        try:
            self._take(claim, weights)
        except BaseException as error:
            taken.set_exception(error)
            raise
        taken.set_result(None)

    def _between(self) -> None:
        with self._turn:
            self._take_arrived()

    @torch.no_grad()
    def _take(self, claim: Fingerprint, weights: Weights | None) -> None:
        for name, own in self._policy.module.named_parameters() if weights is not None else ():
            if own.requires_grad:
                own.copy_(torch.tensor(weights[name]).view(own.dtype).view(own.shape))  # type: ignore[index]
        if not hasattr(self._sampler, "fingerprint") and (held := fingerprint(self._policy.model)) != claim.digest:
            raise UserError(other_weights(self._stage, claim, held))  # before a server is given them
        self._sampler.publish(claim.version)
        prove(claim, self._sampler, self._stage)

    def canary(self, prompt: Sequence[int], tokens: Sequence[int]) -> list[float]:
        """See `types.ProvingSampler`."""
        return list(self._sampler.canary(prompt, tokens))  # type: ignore[attr-defined]

    def begin(self, requests: Sequence[SampleRequest]) -> None:
        """Draw for these from now on."""
        self._number = {id(request): number for number, request in enumerate(requests)}
        self._asked = requests  # their ids are theirs while they live
        how = self._stage.rollout.in_flight
        more: dict[str, Any] = {} if how == "off" else {"flight": InFlight(self._between, how == "recompute")}
        self._drawn = iter(self._sampler.sample(requests, **more))

    def more(self) -> tuple[int, tuple[Completion, ...]]:
        """The next group that is whole: the number of its request, and its completions."""
        with self._turn:
            self._decoding = True
        try:
            request, completions = next(self._drawn)
        finally:
            with self._turn:
                self._decoding = False
                self._take_arrived()
        return self._number[id(request)], completions

    def close(self) -> None:
        """End the server, where there is one."""
        if (close := getattr(self._sampler, "close", None)) is not None:
            close()


class RewardActor:
    """A pool of reward workers."""

    def enter(self, surroundings: Surroundings, who: str) -> None:
        """Begin."""
        surroundings.enter(who)

    def open(self, rewards: bytes, stage: Stage, log: str) -> dict[str, str]:
        """Start the workers, and return the digests of the code that came with their models."""
        run = stage.run
        self._pool = RewardPool(
            [pickle.loads(one) for _, one in pickle.loads(rewards)],
            run.workers,
            run.retries,
            log=log,
            pass_environment=run.pass_environment,
        )
        return in_workers

    def score(self, item: ScoringItem) -> ScoredGroup:
        """The scores of a group."""
        return self._pool.submit(item).result()


def _bytes(value: torch.Tensor) -> Any:
    return value.contiguous().view(-1).view(torch.uint8).numpy()
