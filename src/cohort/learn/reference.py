"""The reference policy: a frozen copy, or with LoRA the base model, with the adapter that it started from or none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from cohort.policy.fit import read_model, refuse_broken, refuse_unlike
from cohort.policy.policy import Policy


class Reference:
    """What the KL is measured against.

    The copy is made when this object is, from the policy's weights of that moment or, in a resumed run whose policy has
    moved on, from `start`, the policy that the run began with. With LoRA it is one of the adapter alone; with
    `fresh_adapter` nothing is copied, as an adapter that has learnt nothing is the same as none.
    """

    def __init__(self, policy: Policy, start: Policy | None = None, fresh_adapter: bool = True):
        self._policy = policy
        self.refreshed = False  # whether it has moved away from the weights the run began with
        self._copy: Policy | None = None
        self._adapter: list[Tensor] | None = None
        if not policy.has_adapter:
            self._copy = start or policy.copy()
            self._copy.module.requires_grad_(False)
        elif not fresh_adapter:
            self._adapter = [weight.detach().clone() for weight in _adapter(start or policy)]

    @property
    def moves(self) -> bool:
        """Whether it can follow the policy. With LoRA it stays what it is."""
        return self._copy is not None

    @property
    def head(self) -> Policy:
        """The policy whose head the reference has: its own; with LoRA, which leaves the head as it is, the policy's."""
        return self._policy if self._copy is None else self._copy

    @contextlib.contextmanager
    def active(self) -> Iterator[Policy]:
        """The policy to ask for reference log-probs, for as long as the context lasts."""
        if self._copy is not None:
            yield self._copy
        elif self._adapter is None:
            with self._policy.module.disable_adapter():
                yield self._policy
        else:
            now = [weight.detach().clone() for weight in _adapter(self._policy)]
            _put(self._policy, self._adapter)
            try:
                yield self._policy
            finally:
                _put(self._policy, now)

    @torch.no_grad()
    def refresh(self, ema: float | None = None) -> None:
        """Move the copy to the policy's weights: a hard copy, or `reference <- ema * reference + (1 - ema) * policy`.

        Raises `ValueError` with LoRA, where the reference stays what it is.
        """
        if self._copy is None:
            raise ValueError("with LoRA the reference stays what it is; it cannot be refreshed")
        self.refreshed = True
        for kept, new in zip(self._copy.module.parameters(), self._policy.module.parameters(), strict=True):
            kept.lerp_(new, 1.0 if ema is None else 1.0 - ema)

    def save(self, directory: Path) -> None:
        """Write the copy, if it has moved away from the weights that the run began with."""
        if self._copy is not None and self.refreshed:
            refuse_broken(self._copy.module)
            self._copy.module.save_pretrained(directory)
            refuse_unlike(self._copy.module, directory)

    def load(self, directory: Path) -> None:
        """Take what `save` wrote, if it wrote anything."""
        if self._copy is not None and directory.exists():
            saved = read_model(self._copy.module, directory, dtype="auto")
            self._copy.module.load_state_dict(saved.state_dict())
            self.refreshed = True


def _adapter(policy: Policy) -> list[Tensor]:
    """The weights that LoRA trains."""
    return [weight for weight in policy.module.parameters() if weight.requires_grad]


@torch.no_grad()
def _put(policy: Policy, weights: list[Tensor]) -> None:
    """Give the adapter these weights."""
    for weight, new in zip(_adapter(policy), weights, strict=True):
        weight.copy_(new)
