"""What everybody but its own backend needs to know of a policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cohort.policy.policy import Policy

__all__ = ["PolicyFacts", "facts_of"]


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """A policy from outside: how texts become its tokens, how long they may be, how large it is, what runs it."""

    name: str  # of its class, such as Qwen3ForCausalLM
    tokenizer: Any
    eos_ids: tuple[int, ...]  # each of them ends a completion
    context: int | None  # positions that it was made for; None: it does not say
    vocabulary: int  # width of the logits
    parameters: int
    trained: int  # of these, how many are trained
    weight_bytes: int
    trained_bytes: int
    compute: str  # the type of the arithmetic, such as bfloat16
    device: str
    path: str  # what runs the forward pass: "compiled kernels", or "plain path (why)"
    config: Any  # of its text model, as transformers has it


def facts_of(policy: Policy) -> PolicyFacts:
    """The facts of a policy in this process."""
    parameters = list(policy.module.parameters())
    trained = [p for p in parameters if p.requires_grad]
    return PolicyFacts(
        name=type(policy.model).__name__,
        tokenizer=policy.tokenizer,
        eos_ids=policy.eos_ids,
        context=policy.max_context,
        vocabulary=policy.vocabulary,
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in trained),
        weight_bytes=sum(p.numel() * p.element_size() for p in parameters),
        trained_bytes=sum(p.numel() * p.element_size() for p in trained),
        compute=str(policy.compute).removeprefix("torch."),
        device=str(policy.device),
        path="compiled kernels" if policy.fused is not None else f"plain path ({policy.plain_because})",
        config=policy.config,
    )
