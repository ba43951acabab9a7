"""The protocol behind which a stage's model lives, and the tables of names that choose what is behind it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from cohort.algorithms.objectives import Objective
from cohort.backends.proving import Fingerprint as Fingerprint
from cohort.policy.load import Start
from cohort.policy.policy import Policy, PolicyFacts
from cohort.rewards import Reward, RewardPool, ScoredGroup, ScoringItem
from cohort.settings import SAMPLERS, Rollout, Stage
from cohort.types import Batch, Sampler, StepReport
from cohort.wording import find_function

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from torch import Tensor

# Who learns, and where it is: "module:name" of a function that takes what `open_backend` takes.
BACKENDS = {"local": "cohort.backends.local:Local", "ray": "cohort.backends.cluster.backend:Cluster"}

Which = Literal["old", "reference", "values", "teacher", "energy"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the weights of a stage come from. `seed` is the stage's own; `texts` yields the texts from which the
    tokenizer of a policy made from nothing is learnt; with `checkpoint` the stage goes on from there. `base` is
    where a model is kept whose adapter was merged: the new one is saved without it.
    """

    seed: int
    start: Start
    texts: Callable[[], Iterable[str]]
    checkpoint: Path | None = None
    base: Path | None = None


class Backend(Protocol):
    """The model of a stage: its sampler, its learner, its reference and its critic."""

    @property
    def facts(self) -> PolicyFacts:
        """What everybody else needs to know of the policy."""

    @property
    def policy(self) -> Policy | None:
        """The policy itself, where it is in this process."""

    @property
    def sampler(self) -> Sampler:
        """Who draws completions from the weights that were published last."""

    def score(self, batch: Batch, which: Which) -> Batch:
        """The batch with what is computed before its first update: log-probs of the weights as they are ("old"), those
        of the reference, the values of the critic, what the teachers of its lesson say, or the energy of each token.
        """

    def open_teachers(self) -> int:
        """Make the teachers ready that the stage has, and say how many bytes their weights take. Raises `UserError`."""

    def update(self, batch: Batch, rate: float) -> StepReport:
        """One optimizer step on one batch. Raises `UserError` when the gradient is not finite."""

    def update_values(self, batch: Batch, returns: Tensor, rate: float) -> float:
        """One optimizer step of the critic towards `returns`, for a batch that holds its values. Returns the loss."""

    def publish(self, version: int) -> Fingerprint:
        """Give the sampler the weights as they are, under a number. Raises `UserError` where it then holds others."""

    def move_reference(self, ema: float | None) -> None:
        """Copy the policy into the reference, or blend it in: `ema` is the share of the reference that stays."""

    def save(self, directory: Path) -> None:
        """Write all that `load` needs: the model as a Hugging Face checkpoint, and the state beside it."""

    def load(self, directory: Path) -> None:
        """Take the optimizer, the reference and the critic of a checkpoint whose weights the policy has already."""

    def restore(self, directory: Path) -> None:
        """Take the weights of a checkpoint as well, in the place of those at hand."""

    def adapt(self, objective: Objective, temperature: float) -> None:
        """Learn by this objective from now on, from samples of this temperature."""

    def rehearse(self, prompt: int) -> None:
        """Do what takes most memory in a step with prompts of `prompt` tokens. It moves what it likes: it is called in
        a copy of the process.
        """

    def save_model(self, directory: Path) -> None:
        """Write the model alone."""

    def close(self) -> None:
        """Give back what it holds: other processes."""


class Scorer(Protocol):
    """Who scores groups, as a `RewardPool` does."""

    def submit(self, item: ScoringItem) -> Future[ScoredGroup]:
        """Score a group."""


def open_backend(stage: Stage, objective: Objective, origin: Origin) -> Backend:
    """The backend that a stage asks for: in this process, or on the cluster of its [cluster] table."""
    name = BACKENDS["ray" if stage.clustered else "local"]
    backend: Backend = find_function(name, "backend")(stage, objective, origin)
    return backend


def open_pool(
    stage: Stage, rewards: Sequence[Reward], log: Path, say: Callable[[str], None]
) -> AbstractContextManager[Scorer]:
    """Who scores the groups of a stage: processes here, or on its cluster."""
    if stage.clustered:
        pool: AbstractContextManager[Scorer]
        pool = find_function("cohort.backends.cluster.scoring:ClusterPool", "pool")(stage, rewards, log)
        return pool
    run = stage.run
    return RewardPool(rewards, run.workers, run.retries, log=log, pass_environment=run.pass_environment, say=say)


def open_sampler(policy: Policy, rollout: Rollout) -> Sampler:
    """The sampler that `rollout.sampler` names, drawing from the weights of a policy in this process."""
    name = rollout.sampler
    sampler: Sampler = find_function(SAMPLERS.get(name, name), "rollout.sampler")(policy, rollout)
    return sampler
