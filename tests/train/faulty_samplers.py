"""Samplers that keep a copy of the weights, and what goes wrong with one: `faulty_samplers:NAME` in recipes."""

from __future__ import annotations

import copy
from typing import ClassVar

import torch

from cohort.engine.engine import Engine
from cohort.policy.policy import Policy
from cohort.settings import Rollout


class Copied(Engine):
    """An engine on weights of its own, which are copied name by name at every publication."""

    def __init__(self, policy: Policy, rollout: Rollout):
        self.theirs = policy.model
        super().__init__(Policy(self.own(policy), policy.tokenizer), rollout.max_rows)

    def own(self, policy: Policy) -> torch.nn.Module:
        return copy.deepcopy(policy.model)

    @torch.no_grad()
    def publish(self, version: int) -> None:
        super().publish(version)
        own = dict(self.policy.model.named_parameters())
        for name, value in self.theirs.named_parameters():
            if (to := self.place(name, version)) in own:
                own[to].copy_(value)

    def place(self, name: str, version: int) -> str:
        return name


class Stale(Copied):
    """From version 2 on, nothing arrives."""

    def place(self, name: str, version: int) -> str:
        return name if version < 2 else "nowhere"


class Misplaced(Copied):
    """The weights of one layer go to another one."""

    def place(self, name: str, version: int) -> str:
        return name.replace("layers.1.", "layers.0.")


class Base(Copied):
    """The adapter is lost on the way."""

    def own(self, policy: Policy) -> torch.nn.Module:
        return copy.deepcopy(policy.module).unload()


class Noisy(Copied):
    """One tensor is noise."""

    @torch.no_grad()
    def publish(self, version: int) -> None:
        super().publish(version)
        self.policy.model.model.layers[0].mlp.down_proj.weight.normal_(0, 5, generator=torch.Generator().manual_seed(0))


class Unchanged(Noisy):
    """The same, with a fingerprint that was only handed on."""

    def fingerprint(self) -> str:
        return Engine(Policy(self.theirs, self.policy.tokenizer)).fingerprint()


class Closed(Unchanged):
    """The same, with something that has to be closed."""

    closed: ClassVar[list[int]] = []

    def close(self) -> None:
        self.closed.append(self.version)


class Older(Copied):
    """It does not notice that it got new weights."""

    def publish(self, version: int) -> None:
        super().publish(min(version, 2))


class Silent:
    """One that can be asked for completions alone."""

    kind = Copied

    def __init__(self, policy: Policy, rollout: Rollout):
        self._engine = self.kind(policy, rollout)
        self.sample, self.publish = self._engine.sample, self._engine.publish

    @property
    def version(self) -> int:
        return self._engine.version


class SilentNoisy(Silent):
    kind = Noisy
