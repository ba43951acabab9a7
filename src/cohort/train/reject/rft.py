"""Rejection-sampling fine-tuning under way: online every step samples and learns; offline the first steps sample from
the policy as it came in, and the others learn what was kept of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cohort.learn.optimizer import rate_at
from cohort.rewards import Combination
from cohort.seeds import derive_seed
from cohort.tasks import Ledger
from cohort.train.checkpoint import Checkpoint
from cohort.train.examples import Told, learn_next, open_ledger
from cohort.train.grpo.training import GrpoTraining, PreparedGrpo
from cohort.train.reject.data import selected
from cohort.train.reject.learning import learnt_batch
from cohort.train.reject.selection import Sample
from cohort.train.sft import seen_in, updated
from cohort.train.stage import Context
from cohort.types import Group


class RftTraining:
    """A `Training`: a GRPO stage's sampling, and supervised steps behind it."""

    def __init__(self, context: Context, prepared: PreparedGrpo, checkpoint: Checkpoint | None):
        self._context, self._stage = context, context.stage
        self._combination = Combination.of(prepared.parts.rewards)
        self._sampling = GrpoTraining(context, prepared, checkpoint)
        self.facts, self.policy = self._sampling.facts, self._sampling.policy
        self.groups: Sequence[Group] = ()
        table = self._stage.rft
        self._samples_until = table.sampling_steps if table.mode == "offline" else self._stage.run.steps
        self._kept: Sequence[Sample] = ()
        self._ledger: Ledger | None = None
        self._state = checkpoint.state.get("examples") if checkpoint else None

    @property
    def weights_of(self) -> int:
        """The step whose weights the policy has."""
        return self._sampling.weights_of

    def step(self, step: int) -> dict[str, float]:
        """Sample and keep; or learn what was kept."""
        if step <= self._samples_until:
            metrics = self._sampling.step(step)
            self.groups = self._sampling.groups
            return metrics
        self.groups, sampled = (), self._samples_until
        rate = rate_at(self._stage.optimizer, self._stage.run.steps - sampled, step - sampled)

        def learn(indices: Sequence[int]) -> Told:
            batch = learnt_batch([self._kept[index] for index in indices])
            report = self._sampling.backend.update(batch, rate).metrics
            self._sampling.weights_of = step
            return updated(report), seen_in(batch)

        return learn_next(self._examples(), self._stage.supervised.examples_per_step, learn)

    def _examples(self) -> Ledger:
        """Which of the kept samples come next. What is kept is read from the log when the first of them is wanted."""
        if self._ledger is None:
            found = selected(self._context, self._combination, self._samples_until)
            self._context.console.say(f"  {found.words()}")
            self._kept = found.kept
            self._ledger = open_ledger(len(self._kept), derive_seed(self._context.seed, "examples"), self._state)
        return self._ledger

    def evaluate(self, step: int) -> Mapping[str, float] | None:
        """Held-out accuracy of the weights as they are."""
        self._sampling.backend.publish(self.weights_of)
        return self._sampling.evaluate(step)

    def save(self, directory: Path) -> Mapping[str, Any]:
        """What the sampling saves, and which samples were learnt."""
        examples = self._state if self._ledger is None else self._ledger.state()
        return {**self._sampling.save(directory), "examples": examples}

    def finish(self, directory: Path) -> None:
        """The trained model."""
        self._sampling.finish(directory)

    def close(self) -> None:
        """End the workers and the tools."""
        self._sampling.close()
