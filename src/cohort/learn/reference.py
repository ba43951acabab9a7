"""The reference policy: a frozen copy, or, with LoRA, the base model with the adapter off."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from cohort.policy.fit import read_model, refuse_broken, refuse_unlike
from cohort.policy.policy import Policy


class Reference:
    """What the KL is measured against.

    With LoRA nothing is copied; without, the copy is made when this object is, from the policy's weights of that moment
    or, in a resumed run whose policy has moved on, it is `start`, the policy that the run began with.
    """

    def __init__(self, policy: Policy, start: Policy | None = None):
        self._policy = policy
        self.refreshed = False  # whether it has moved away from the weights the run began with
        self.adapter_off = policy.has_adapter
        self._copy: Policy | None = None
        if not self.adapter_off:
            self._copy = start or policy.copy()
            self._copy.module.requires_grad_(False)

    @contextlib.contextmanager
    def active(self) -> Iterator[Policy]:
        """The policy to ask for reference log-probs, for as long as the context lasts."""
        if self._copy is not None:
            yield self._copy
        else:
            with self._policy.module.disable_adapter():
                yield self._policy

    @torch.no_grad()
    def refresh(self, ema: float | None = None) -> None:
        """Move the copy to the policy's weights: a hard copy, or `reference <- ema * reference + (1 - ema) * policy`.

        Raises `ValueError` with LoRA, where the reference is the base model and stays so.
        """
        if self._copy is None:
            raise ValueError("with LoRA the reference is the base model; it cannot be refreshed")
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
