"""The critic of PPO: a copy of the policy's body with a scalar head, trained to predict the reward after a prefix."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cohort.learn.budget import Budget
from cohort.learn.forward import forward
from cohort.learn.optimizer import clip_gradient, load_optimizer, open_optimizer, save_optimizer
from cohort.policy.fit import refuse_broken
from cohort.policy.policy import Policy
from cohort.settings import Critic as CriticTable
from cohort.settings import Optimizer
from cohort.types import Batch, UserError

MEND = "Scale the rewards to a range near 1, or lower critic.learning_rate."


class Critic:
    """Values at the position *before* each token, from a body that starts as the policy's and a head of zeros.

    Weights that are not trained are the policy's own tensors: with LoRA the critic is an adapter and a head on the same
    base.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: Optimizer,
        critic: CriticTable,
        budget: Budget | None = None,
        tolerant: bool = False,
    ):
        self._policy = policy.copy(share_frozen=True)
        width = policy.model.get_output_embeddings().weight.shape[1]
        self.head = nn.Linear(width, 1, device=policy.device, dtype=torch.float32)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        # The language-model head is of no use here; one that is tied to the embeddings is trained as such.
        self.module = nn.ModuleDict({"body": self._policy.model.base_model, "head": self.head})
        self.settings = optimizer
        self.budget = Budget(optimizer.tokens_per_micro_batch) if budget is None else budget
        self.optimizer = open_optimizer(optimizer, self.module)
        self.clip, self._tolerant = critic.value_clip, tolerant

    def values(self, batch: Batch) -> Tensor:
        """`[N]` float32; 0 outside the mask."""
        return self.budget.spend(partial(self._values, batch))

    @torch.no_grad()
    def _values(self, batch: Batch, tokens: int) -> Tensor:
        out = torch.zeros(batch.tokens.shape, dtype=torch.float32)
        for micro, states in forward(self._policy, batch, batch.mask, tokens):
            out[micro.picked] = self.head(states.float())[:, 0].cpu()
        return out

    def update(self, batch: Batch, returns: Tensor, old_values: Tensor, learning_rate: float) -> float:
        """One optimizer step towards `returns` `[N]`. Returns the loss, a mean over the batch's tokens:

        0.5 * max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2), the clipped value loss of PPO implementations.

        When the gradient is not finite, the weights are untouched, and `UserError` is raised, or where that is
        tolerated the loss is NaN.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        add_up = partial(self._gradients, batch, returns.float(), old_values)
        total = self.budget.spend(add_up, partial(self.optimizer.zero_grad, True))
        norm = clip_gradient(
            self.module.parameters(), self.settings.gradient_clip, self._tolerant, " of the critic", MEND
        )
        if finite := norm < math.inf:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total if finite else math.nan

    def _gradients(self, batch: Batch, returns: Tensor, old_values: Tensor, tokens: int) -> float:
        """Add the loss's gradients to the parameters', in micro-batches of about `tokens` tokens. Returns the loss."""
        count = batch.mask.sum()
        total = 0.0
        for micro, states in forward(self._policy, batch, batch.mask, tokens):
            values = micro.spread(self.head(states.float())[:, 0])  # [b, T]
            target, old = micro.take(returns), micro.take(old_values)
            clipped = old + (values - old).clamp(-self.clip, self.clip)
            error = torch.maximum((values - target).square(), (clipped - target).square())
            loss = 0.5 * error.sum() / count  # 0 outside the mask, where all three are 0
            loss.backward()
            total += loss.item()
        return total

    def save(self, directory: Path) -> None:
        """Write weights and optimizer."""
        refuse_broken(self.module)
        directory.mkdir()
        save_file({name: p.detach().clone() for name, p in self._trained()}, directory / "model.safetensors")
        save_optimizer(self.optimizer, directory)

    def load(self, directory: Path) -> None:
        """Read what `save` wrote."""
        saved = load_file(directory / "model.safetensors")
        if missing := {name for name, _ in self._trained()} ^ saved.keys():
            raise UserError(
                f"{directory} holds the critic of another policy: {min(missing)} is in one of the two only. Begin "
                "without this checkpoint, or with another baseline"
            )
        self.module.load_state_dict(saved, strict=False)  # what is not trained is the policy's
        load_optimizer(self.optimizer, directory)

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.module.named_parameters() if p.requires_grad]
