"""Sampling and learning in this process: one module serves both, so weights are shared and numerics are the same."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import Tensor

from cohort.algorithms.objectives import Objective
from cohort.backends.base import Fingerprint, Origin, Which, open_sampler
from cohort.backends.proving import asks_canary, claimed, prove
from cohort.backends.teacher_server import ServedTeacher
from cohort.backends.teachers import Loaded, open_teachers, taught
from cohort.engine.engine import Engine
from cohort.learn.batch import decided
from cohort.learn.budget import Budget
from cohort.learn.critic import Critic
from cohort.learn.learner import Learner
from cohort.learn.optimizer import load_optimizer, save_optimizer
from cohort.learn.ranks import Ranks
from cohort.learn.reference import Reference
from cohort.learn.sharded import FOLDER, load_shards, save_shards
from cohort.learn.teaching import Teacher, Teaching
from cohort.policy.load import open_policy, resumed_policy, save_policy, starts_from_adapter
from cohort.policy.policy import Policy, PolicyFacts
from cohort.preflight.memory import fitted
from cohort.preflight.objective import asks_reference
from cohort.record.files import write_bytes
from cohort.record.manifest import sealed_directory
from cohort.settings import Rollout, Stage
from cohort.settings.training import STAYS
from cohort.types import Batch, Sampler, UserError

ENTROPY = "entropy.json"  # of a checkpoint: where the controller of the entropy bonus stands
LESS = "memory.json"  # of a checkpoint: what is done at once, where that is less than the recipe says


def open_engine(policy: Policy, rollout: Rollout) -> Engine:
    """`rollout.sampler = "local"`: the engine of this process. The key names other functions like this one."""
    return Engine(policy, rollout.max_rows, rollout.precision)


class Local:
    """A `Backend` whose parts are all in this process. Its policy is loaded, or made, when this object is."""

    def __init__(self, stage: Stage, objective: Objective, origin: Origin, ranks: Ranks | None = None):
        self.policy: Policy = (
            open_policy(stage.policy, origin.seed, origin.start, origin.texts, functools.partial(_keep, origin))
            if origin.checkpoint is None
            else resumed_policy(stage.policy, origin.checkpoint)
        )
        stage = fitted(stage, objective, self.policy.facts())
        again = stage.policy.checkpointing == "on"
        if again and ranks is None:
            if self.policy.fused is None:
                raise UserError(
                    f'policy.checkpointing = "on" needs the compiled path, and this policy takes the '
                    f"{self.policy.path}: leave it out, or lower optimizer.tokens_per_micro_batch to save memory"
                )
            self.policy.fused.checkpointing = True
        self._stage, self._objective, self._origin = stage, objective, origin
        asked = asks_reference(stage, objective)
        self._reference = self._open_reference() if asked else None
        self._ranks = ranks
        if ranks is not None:
            ranks.shard(self.policy, again, stage.cluster.offload)
        self._budget = Budget(stage.optimizer.tokens_per_micro_batch)
        self._learner = Learner(
            self.policy,
            objective,
            stage.optimizer,
            stage.rollout.temperature,
            self._reference,
            stage.policy.router_aux_coef,
            stage.tolerant,
            self._teaching(),
            self._budget,
        )
        self.update = self._learner.update
        self._critic: Critic | None = None
        if objective.baseline == "critic":
            self._critic = Critic(self.policy, stage.optimizer, stage.critic, self._budget, stage.tolerant)

    @property
    def facts(self) -> PolicyFacts:
        """Of the policy as it is."""
        return self.policy.facts()

    @functools.cached_property
    def sampler(self) -> Sampler:
        """What `rollout.sampler` names, opened on first use."""
        return open_sampler(self.policy, self._stage.rollout)

    @functools.cached_property
    def _teachers(self) -> list[Teacher | ServedTeacher]:
        """Opened on first use: a step that is learnt again from what its teachers said needs none."""
        return open_teachers(self._stage, self.policy, self._reference)

    def open_teachers(self) -> int:
        """See `Backend`. The policy and its reference are counted elsewhere."""
        own = [one.head for one in self._teachers if isinstance(one, Loaded)]
        return sum(p.numel() * p.element_size() for one in own for p in one.module.parameters())

    def _teaching(self) -> Teaching | None:
        table = self._stage.taught
        if table is None or table.divergence == "sampled":
            return None
        return Teaching(table, lambda: self._teachers, self._stage.rollout.temperature)

    def score(self, batch: Batch, which: Which) -> Batch:
        """See `Backend`."""
        if which == "teacher":
            heat, states = self._stage.rollout.temperature, self._teaching() is not None
            return self._budget.spend(lambda most: taught(self._teachers, batch, most, heat, states))
        if which == "energy":
            return replace(batch, energy=self._learner.energies(batch))
        if which == "old":
            return self._learner.start(batch)
        if which == "reference":
            return replace(batch, ref_logprobs=self._learner.reference_logprobs(batch))
        if self._critic is None:
            raise ValueError("only an objective whose baseline is a critic has values")
        return replace(batch, values=self._critic.values(batch))

    def update_values(self, batch: Batch, returns: Tensor, rate: float) -> float:
        """See `Backend`."""
        if self._critic is None or batch.values is None:
            raise ValueError("the values of a batch are updated after they were scored, by a critic")
        return self._critic.update(batch, returns, batch.values, rate)

    def publish(self, version: int) -> Fingerprint:
        """See `Backend`. The engine shares the weights: it only learns their number."""
        self.sampler.publish(version)
        claim = claimed(self.policy, version, asks_canary(self.sampler, version))
        return prove(claim, self.sampler, self._stage)

    def move_reference(self, ema: float | None) -> None:
        """See `Backend`. With LoRA the reference stays what it is."""
        if self._reference is not None and self._reference.moves:
            self._reference.refresh(ema)

    def save(self, directory: Path) -> None:
        """See `Backend`."""
        self.save_model(directory)
        if self._ranks is not None:
            save_shards(self._learner.optimizer, directory, self._ranks)
            if self._ranks.rank:  # the rest is the same on all
                return
        else:
            save_optimizer(self._learner.optimizer, directory)
        if self._learner.controller is not None:
            write_bytes(directory / ENTROPY, orjson.dumps(self._learner.controller.state()))
        opened, rows = self.__dict__.get("sampler"), self._stage.rollout.max_rows  # it is opened on first use
        less = {"tokens": self._budget.tokens, "rows": opened.max_rows if isinstance(opened, Engine) else rows}
        if less != {"tokens": self._budget.most, "rows": rows}:  # memory has run out: the last bits depend on it
            write_bytes(directory / LESS, orjson.dumps(less))
        if self._reference is not None:
            self._reference.save(directory / "reference")
        if self._critic is not None:
            self._critic.save(directory / "critic")

    def load(self, directory: Path) -> None:
        """See `Backend`."""
        read = load_shards if (directory / FOLDER).is_dir() else load_optimizer
        read(self._learner.optimizer, directory)
        if self._learner.controller is not None:
            self._learner.controller.restore(_read(directory / ENTROPY, "the entropy bonus"))
        if (file := directory / LESS).is_file():
            less = _read(file, "what is computed at once")
            self._budget.tokens = min(self._budget.tokens, less["tokens"])
            if isinstance(self.sampler, Engine):
                self.sampler.max_rows = min(self.sampler.max_rows, less["rows"])
        if self._reference is not None:
            self._reference.load(directory / "reference")
        if self._critic is not None:
            self._critic.load(directory / "critic")

    def restore(self, directory: Path) -> None:
        """See `Backend`."""
        saved = resumed_policy(self._stage.policy, directory)
        self.policy.module.load_state_dict(saved.module.state_dict())
        self.load(directory)

    def adapt(self, objective: Objective, temperature: float) -> None:
        """See `Backend`."""
        self._learner.objective = objective
        self._learner.form = temperature, self._learner.form[1]

    def rehearse(self, prompt: int) -> None:
        """See `Backend`. The first update is small and brings the optimizer's averages, which are there in the second,
        of a whole micro-batch.
        """
        r, o = self._stage.rollout, self._stage.optimizer
        rows = r.prompts_per_step * (r.group_size + r.over_sample)
        if isinstance(self.sampler, Engine):
            self.sampler.rehearse(prompt, r.prompts_per_step, rows, r.max_tokens)
        groups = min(r.prompts_per_step, 1 + o.tokens_per_micro_batch // (prompt + r.group_size * r.max_tokens))
        for count, size, tokens in ((1, 1, 1), (groups, r.group_size, r.max_tokens)):
            batch = self._scored(_worst(self.policy.eos_ids[0], prompt, count, size, tokens))
            if self._objective.term_of("expert"):
                batch = replace(batch, expert=_worst(self.policy.eos_ids[0], prompt, count, 1, tokens))
            self._learner.update(batch, 0.0)
            if self._critic is not None:
                self._critic.update(batch, batch.advantages, batch.advantages, 0.0)

    def _scored(self, batch: Batch) -> Batch:
        """The batch with all that the objective wants to know before an update."""
        if self._objective.term_of("observation"):
            batch = replace(batch, observed=~batch.mask)
        if self._objective.baseline == "token_optimal":
            batch = self.score(batch, "energy")
        if self._objective.is_batchwide:
            batch = decided(self.score(batch, "old"), self._objective)
        return batch if self._reference is None else self.score(batch, "reference")

    def save_model(self, directory: Path) -> None:
        """See `Backend`."""
        if (policy := self.whole()) is not None:
            save_policy(policy, directory)

    def close(self) -> None:
        """See `Backend`: a sampler may have a server."""
        if (close := getattr(self.__dict__.get("sampler"), "close", None)) is not None:
            close()

    def whole(self) -> Policy | None:
        """The policy in one piece; None on ranks but the first, where there are several. All of them ask at once."""
        return self.policy if self._ranks is None else self._ranks.gather(self.policy)

    def _open_reference(self) -> Reference:
        """What the stage began with: the weights at hand in a fresh run, read again in a resumed one."""
        table, origin = self._stage.policy, self._origin
        if self.policy.has_adapter and self._stage.reference.moves:
            raise UserError(STAYS)
        fresh = self.policy.has_adapter and not starts_from_adapter(table, origin.start)
        if origin.checkpoint is None or fresh:
            return Reference(self.policy, fresh_adapter=fresh)
        start = open_policy(table, origin.seed, origin.start, origin.texts)
        return Reference(self.policy, start, fresh_adapter=False)


def _read(file: Path, what: str) -> Any:
    try:
        return orjson.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} of the checkpoint, which holds {what}, cannot be read: {error}") from None


def _worst(token: int, prompt: int, prompts: int, size: int, tokens: int) -> Batch:
    """A batch of `size` rollouts of `tokens` tokens for each of the prompts, all of which count."""
    rows = prompts * size
    ones = torch.ones(rows * tokens)
    return Batch(
        prompts=((token,) * prompt,) * prompts,
        group=torch.arange(prompts).repeat_interleave(size),
        tokens=torch.full((rows * tokens,), token),
        lengths=torch.full((rows,), tokens),
        mask=ones.bool(),
        sampler_logprobs=-ones,
        advantages=ones,
        token_weight=ones / len(ones),
        versions=torch.zeros(rows, dtype=torch.long),
        version=1,
        rewards=torch.ones(rows),
    )


def _keep(origin: Origin, merged: Policy) -> None:
    """Write the model that an adapter was merged into: the new adapter of the run is read onto it."""
    if origin.base is not None:
        with sealed_directory(origin.base) as new:
            save_policy(merged, new)
        merged.model.name_or_path = str(origin.base.absolute())
