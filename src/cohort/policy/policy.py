"""The policy: a Hugging Face causal LM and its tokenizer, called on flat token rows.

`Policy.hidden` runs the body of the model under a layout; `Policy.logits` is its head. Both the engine and the learner
go through these two calls, so they share weights and numerics.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cohort.policy.attention import ATTENTION, Layout, PackedGroups
from cohort.types import UserError

__all__ = ["Policy"]


class Policy:
    """A causal LM made ready: evaluation mode for good (no dropout in any log-prob), Cohort's attention, known ends.

    `module` is what is trained and saved: the model itself, or peft's wrapper around it.
    Raises `UserError` for a model without an end-of-sequence token, or one whose forward pass under Cohort's attention
    differs from its own.
    """

    def __init__(self, module: Any, tokenizer: Any, compute: str = "float32"):
        self.module = module
        self.tokenizer = tokenizer
        self.model: Any = module.get_base_model() if hasattr(module, "get_base_model") else module
        self.compute = getattr(torch, compute)
        self.config = self.model.config.get_text_config()
        self.eos_ids = _eos_ids(self.model, tokenizer)
        self.model.set_attn_implementation(ATTENTION)
        self.module.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def max_context(self) -> int | None:
        """The number of positions that the model was made for, if it says so."""
        return getattr(self.config, "max_position_embeddings", None)

    @property
    def vocabulary(self) -> int:
        """The width of the logits."""
        return self.model.get_output_embeddings().weight.shape[0]

    def hidden(self, tokens: Tensor, positions: Tensor, layout: Layout) -> Tensor:
        """The final hidden states of a flat row: `[1, N], [1, N] -> [N, hidden]`."""
        with self._precision():
            out = self.model.base_model(
                input_ids=tokens, position_ids=positions, use_cache=False, layout=layout
            ).last_hidden_state
        return out[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """`[M, hidden] -> [M, vocabulary]` in float32, with the model's own scaling and soft-capping."""
        with self._precision():
            logits = self.model.get_output_embeddings()(hidden)
        logits = logits.float()
        if (scale := getattr(self.config, "logits_scaling", None)) is not None:  # Granite
            logits = logits / scale
        if (scale := getattr(self.config, "logit_scale", None)) is not None:  # Cohere
            logits = logits * scale
        if (cap := getattr(self.config, "final_logit_softcapping", None)) is not None:  # Gemma 2
            logits = torch.tanh(logits / cap) * cap
        return logits

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        """With LoRA: the base model, adapter off, for as long as the context lasts."""
        with self.module.disable_adapter():
            yield

    def check(self, tolerance: float = 1e-4) -> None:
        """Compare a short forward pass under Cohort's attention with the model's own, and refuse a model that differs.

        An architecture may do what no layout knows of (attention sinks, learned biases); this finds it before training.
        """
        generator = torch.Generator().manual_seed(0)
        row = torch.randint(0, self.vocabulary, (1, 12), generator=generator).to(self.device)
        with torch.no_grad():
            layout = PackedGroups([row[0, :7].tolist()], [row[0, 7:].tolist()], [0], self.device)
            ours = self.logits(self.hidden(layout.tokens, layout.positions, layout))
            self.model.set_attn_implementation("eager")
            try:
                with self._precision():
                    theirs = self.model(input_ids=row[:, :-1], use_cache=False).logits[0].float()
            finally:
                self.model.set_attn_implementation(ATTENTION)
        worst = (ours.log_softmax(-1) - theirs.log_softmax(-1)).abs().max().item()
        limit = tolerance if self.compute == torch.float32 and self.model.dtype == torch.float32 else 0.1
        if not worst <= limit:
            raise UserError(
                f"{type(self.model).__name__} gives other log-probs under Cohort's attention than under its own "
                f"(they differ by {worst:.2g}, more than {limit:g}), so it cannot be trained exactly. "
                "Architectures known to work: Qwen2, Qwen3, Llama, Mistral, Gemma 3."
            )

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.compute == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute)


def _eos_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Every id that ends a completion: the tokenizer's and those of the generation config."""
    ids: set[int] = set()
    if tokenizer.eos_token_id is not None:
        ids.add(int(tokenizer.eos_token_id))
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if configured is not None:
        ids.update(configured if isinstance(configured, (list, tuple)) else [configured])
    if not ids:
        raise UserError(
            "the tokenizer has no end-of-sequence token, so no completion could ever end. "
            'Set one and save again: tokenizer.eos_token = "<|end|>"; tokenizer.save_pretrained(DIRECTORY).'
        )
    return tuple(sorted(ids))
