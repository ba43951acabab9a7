"""From final hidden states to log-probs and entropies, never with all logits at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cohort.kernels.functions import logprob_gradient, logprobs, product, rounded, weight_gradient
from cohort.policy.policy import Policy

__all__ = ["head"]

LOGITS_AT_ONCE = 1 << 24  # float32 logits held for the backward pass: 64 MiB; beyond it chunks are recomputed


def head(
    policy: Policy, states: Tensor, targets: Tensor, temperature: float, entropy_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Log-probs of `targets` `[M]` and entropies (nats), `[M]` each, float32, of softmax(logits / temperature), where
    the logits are those of `states` `[M, hidden]`.

    When there are several chunks of tokens, each is recomputed in the backward pass: `[M, vocabulary]` is never held.
    """
    if policy.fused and not entropy_gradient:
        output = policy.model.get_output_embeddings()
        found, entropy = _Fused.apply(rounded(states), output.weight, rounded(targets), temperature)
        return found[: len(states)], entropy[: len(states)]
    chunk = max(1, LOGITS_AT_ONCE // policy.vocabulary)

    def plain(states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        found = (policy.logits(states) / temperature).log_softmax(-1)  # [m, V] float32
        with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
            entropy = -(found.exp() * found).sum(-1)
        return found.gather(-1, targets[:, None])[:, 0], entropy

    pieces = list(zip(states.split(chunk), targets.split(chunk), strict=True))
    if len(pieces) == 1 or not torch.is_grad_enabled():
        parts = [plain(s, t) for s, t in pieces]
    else:
        parts = [checkpoint(plain, s, t, use_reentrant=False, preserve_rng_state=False) for s, t in pieces]
    found, entropy = (torch.cat(x) for x in zip(*parts, strict=True))
    return found, entropy


class _Fused(torch.autograd.Function):
    """`head` for a plain linear head: the softmax is never written out, its gradient takes the place of the logits."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        chunk = max(1, LOGITS_AT_ONCE // len(weight))
        found, entropy, logsumexp = (states.new_empty(len(states)) for _ in range(3))
        logits = None
        for at in range(0, len(states), chunk):
            part = slice(at, at + chunk)
            logits = product(states[part], weight)
            found[part], entropy[part], logsumexp[part] = logprobs(logits, targets[part], temperature)
        ctx.save_for_backward(states, weight, targets, logsumexp)
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.logits = logits if len(states) <= chunk else None
        ctx.mark_non_differentiable(entropy)
        return found, entropy

    @staticmethod
    def backward(ctx: Any, flow: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, targets, logsumexp = ctx.saved_tensors
        flow = flow.contiguous()
        to_states = torch.empty_like(states)
        to_weight: Tensor | None = None
        for at in range(0, len(states), ctx.chunk):
            part = slice(at, at + ctx.chunk)
            logits = ctx.logits if ctx.logits is not None else product(states[part], weight)
            ctx.logits = None  # its place is taken by the gradient
            logprob_gradient(logits, targets[part], ctx.temperature, logsumexp[part], flow[part])
            if ctx.needs_input_grad[0]:
                to_states[part] = product(logits, weight.t())
            if ctx.needs_input_grad[1]:
                share = weight_gradient(logits, states[part])
                to_weight = share if to_weight is None else to_weight.add_(share)
        return to_states, to_weight, None, None
