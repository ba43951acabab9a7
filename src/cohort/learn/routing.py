"""What the routers of a mixture of experts do in an update: their load, and the loss that evens it out.

The loss is that of Switch Transformer (arXiv 2101.03961, equations 4 to 6), of each layer, and its mean over layers:
`experts * sum_e f_e P_e`, f_e the share of the choices that went to expert e and P_e the mean of its probability. Both
are taken over the tokens that the update trains on, f_e in a pass of its own before the update: so the gradient, which
goes through P_e alone, does not depend on how the batch is split.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cohort.policy.policy import Policy
from cohort.types import UserError


@dataclass(frozen=True, slots=True)
class Routed:
    """What a router said to M tokens, and which k experts each of them went to."""

    logits: Tensor  # [M, experts]
    chosen: Tensor  # [M, k]


class Routers:
    """The routers of a policy, if it has any, as transformers declares them; they can be watched while it computes."""

    def __init__(self, policy: Policy):
        declared = (getattr(policy.model, "_can_record_outputs", None) or {}).get("router_logits", [])
        declared = declared if isinstance(declared, list) else [declared]
        kinds = {one.target_class: one.index for one in declared if getattr(one, "target_class", None)}
        found = [(module, kind) for module in policy.model.modules() for kind in kinds if isinstance(module, kind)]
        self._found = [(module, kinds[kind]) for module, kind in found]
        self._policy = policy
        counts = [getattr(policy.config, name, None) for name in ("num_experts_per_tok", "moe_topk", "top_k")]
        self._most = next((n for n in counts if isinstance(n, int)), 1)

    def __bool__(self) -> bool:
        return bool(self._found)

    def refuse_none(self) -> None:
        """Raise `UserError` for a policy that has no router to balance."""
        if not self:
            raise UserError(
                f"policy.router_aux_coef is for a mixture of experts, and {type(self._policy.model).__name__} has no "
                "router that transformers declares: remove it"
            )

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[Tensor]]:
        """What routers say of the packed row that is computed meanwhile: logits `[N, experts]` and choices `[N, k]` of
        one layer after the other.
        """
        rows: list[Tensor] = []

        def note(index: int, _module: Any, _given: Any, out: Any) -> None:
            logits = out[index].flatten(0, -2)
            whole = [x for x in out if not x.is_floating_point() and x.numel() % len(logits) == 0]
            chosen = whole[0].reshape(len(logits), -1) if whole else logits.topk(self._most, -1).indices
            rows.extend((logits, chosen))

        hooks = [module.register_forward_hook(partial(note, index)) for module, index in self._found]
        try:
            with self._policy.beside(rows):
                yield rows
        finally:
            for hook in hooks:
                hook.remove()


def layers(rows: list[Tensor], at: Tensor) -> tuple[Routed, ...]:
    """What `Routers.watched` found of tokens `at` `[M]`, a layer each."""
    return tuple(Routed(logits[at], chosen[at]) for logits, chosen in zip(rows[::2], rows[1::2], strict=True))


def counts(routed: tuple[Routed, ...]) -> Tensor:
    """How many choices went to each expert: `[layers, experts]`."""
    return torch.stack([one.chosen.flatten().bincount(minlength=one.logits.shape[1]).float() for one in routed])


def balance(routed: tuple[Routed, ...], shares: Tensor, tokens: int) -> Tensor:
    """The part of the loss above that these tokens of `tokens` have, given the `shares` `[layers, experts]`."""
    probability = torch.stack([one.logits.float().softmax(-1).sum(0) for one in routed]) / tokens  # [layers, experts]
    return shares.shape[1] * (shares * probability).sum() / len(routed)


def load(counts: Tensor) -> dict[str, float]:
    """The load of the experts as two numbers, means over layers, of counts `[layers, experts]`."""
    shares = counts.double() / counts.sum(-1, keepdim=True)
    entropy = -torch.special.xlogy(shares, shares).sum(-1) / torch.tensor(shares.shape[1]).log()
    return {"router/busiest": shares.amax(-1).mean().item(), "router/evenness": entropy.mean().item()}
