"""The policy: a Hugging Face causal LM and its tokenizer, called on flat token rows.

`Policy.hidden` runs the body of the model under a layout; `Policy.logits` is its head. Both the engine and the learner
go through these two calls, so they share weights and numerics.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cohort.chat import ChatTemplate, has_template
from cohort.kernels.functions import product
from cohort.policy.attention import ATTENTION, Layout, PackedGroups
from cohort.policy.fit import DIVERGED, is_classifier
from cohort.policy.fused import FusedBody, changes_with_length, unfit
from cohort.policy.generic import GenericBody, Mode
from cohort.policy.proof import find_mode, packed_differs
from cohort.policy.verify import probe, verify
from cohort.remote_code import remote_code
from cohort.types import UserError


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """A policy from outside: how texts become its tokens, how long they may be, how large it is, what runs it."""

    name: str  # of its class, such as Qwen3ForCausalLM
    tokenizer: Any
    eos_ids: tuple[int, ...]  # each of them ends a completion
    turn_end: int | None  # that of them which the chat template writes behind a turn; None: no token, or no template
    unheard_end: str  # what the chat template writes there instead of a token, and nobody stops at
    context: int | None  # positions that it was made for; None: it does not say
    vocabulary: int  # width of the logits
    parameters: int
    trained: int  # of these, how many are trained
    adapter: str  # "LoRA of rank 4, new" or "..., going on with the adapter"; empty where there is none
    weight_bytes: int
    trained_bytes: int
    compute: str  # the type of the arithmetic, such as bfloat16
    device: str
    dequantised: str  # the type that its weights were stored as in a GGUF file, such as Q4_1; "" for a checkpoint
    path: str  # what runs the forward pass: "compiled kernels", or "plain path (why)"
    config: Any  # of its text model, as transformers has it
    teacher_bytes: int = 0  # of the weights of teachers that are loaded beside it
    code: Mapping[str, str] = field(default_factory=dict)  # `remote_code` of the process that holds it


class Policy:
    """A causal LM made ready: evaluation mode for good (no dropout in any log-prob), Cohort's attention, known ends.

    `module` is what is trained and saved: the model itself, or peft's wrapper around it. `mode` says how the model is
    run without packed groups; None: by packed groups, until `check` finds that they are wrong for it.
    Raises `UserError` for a model without an end-of-sequence token.
    """

    def __init__(self, module: Any, tokenizer: Any, compute: str = "float32", mode: Mode | None = None):
        self.module = module
        self.tokenizer = tokenizer
        self.model: Any = module.get_base_model() if hasattr(module, "get_base_model") else module
        self.compute = getattr(torch, compute)
        self.config = self.model.config.get_text_config()
        self.unheard_end, self.turn_end = _turn_end(tokenizer)
        self.eos_ids = _eos_ids(self.model, tokenizer, self.turn_end)
        if len(tokenizer) > self.vocabulary:
            raise UserError(
                f"the tokenizer has {len(tokenizer)} tokens but the model only {self.vocabulary}: use the model's own "
                "tokenizer, or call model.resize_token_embeddings(len(tokenizer)) and save both again"
            )
        self._own_attention = self.config._attn_implementation
        self.module.eval()
        if mode is None:
            self.set_attention(ATTENTION)
        self.plain_because = unfit(self.model)  # why there is no fused path; None while there is one
        self.fused: FusedBody | None = None if self.plain_because else FusedBody(self.model, self.compute)
        self._verified = False
        self.ranks: Any = None  # a `learn.ranks.Ranks`, where several processes share the weights
        self.generic: GenericBody | None = None  # in the place of packed groups, where those are wrong for the model
        if mode is not None:
            self.take_generic(mode)

    @property
    def device(self) -> torch.device:
        """Where it computes: where the weights are, but for those of ranks that keep them elsewhere."""
        return next(self.model.parameters()).device if self.ranks is None else self.ranks.device

    @property
    def max_context(self) -> int | None:
        """The number of positions that the model was made for, if it says so.

        Where the frequencies of its rotary embedding change for all tokens of a row that grows longer (longrope,
        dynamic), it is the number up to which they do not: a rollout would have other log-probs than when it was drawn.
        """
        most = getattr(self.config, "max_position_embeddings", None)
        rope = getattr(self.config, "rope_parameters", None) or {}
        if changes_with_length(self.config):
            first = rope.get("original_max_position_embeddings")
            first = first or getattr(self.config, "original_max_position_embeddings", None)
            return most if first is None else min(first, most or first)
        return most

    @property
    def vocabulary(self) -> int:
        """The width of the logits."""
        head = self.model.get_output_embeddings()
        return self.config.vocab_size if head is None else head.weight.shape[0]

    @property
    def has_adapter(self) -> bool:
        """Whether a LoRA adapter of peft is around the model."""
        return hasattr(self.module, "disable_adapter")

    @property
    def compute_name(self) -> str:
        """The type that the body computes in, as a recipe writes it: float32 or bfloat16."""
        return str(self.compute).removeprefix("torch.")

    def facts(self) -> PolicyFacts:
        """What everybody but its own backend needs to know of it, as it is now."""
        parameters = list(self.module.parameters())
        trained = [p for p in parameters if p.requires_grad]
        return PolicyFacts(
            name=type(self.model).__name__,
            tokenizer=self.tokenizer,
            eos_ids=self.eos_ids,
            turn_end=self.turn_end,
            unheard_end=self.unheard_end,
            context=self.max_context,
            vocabulary=self.vocabulary,
            parameters=sum(p.numel() for p in parameters),
            trained=sum(p.numel() for p in trained),
            adapter=self._adapter(),
            weight_bytes=sum(p.numel() * p.element_size() for p in parameters),
            trained_bytes=sum(p.numel() * p.element_size() for p in trained),
            compute=self.compute_name,
            device=str(self.device),
            dequantised=getattr(self.model, "dequantised_from", ""),
            path=self.path,
            config=self.config,
            code=remote_code(),
        )

    def _adapter(self) -> str:
        """What the adapter is; one whose every second matrix is 0 has learnt nothing yet."""
        if not self.has_adapter:
            return ""
        seconds = [p for name, p in self.module.named_parameters() if ".lora_B." in name]
        rank = self.module.peft_config[self.module.active_adapter].r
        new = not any(map(torch.any, seconds))
        without = getattr(self.model, "without_adapter", "")  # what all-linear leaves out
        return (
            f"LoRA of rank {rank}, {'new' if new else 'going on with the adapter'}{without and f'; none on {without}'}"
        )

    @property
    def path(self) -> str:
        """What runs the forward pass: `compiled kernels`, `plain path (why)` or `generic path (why; its costs)`."""
        if self.generic is not None:
            return str(self.generic.mode)
        return "compiled kernels" if self.fused is not None else f"plain path ({self.plain_because})"

    @property
    def mode(self) -> Mode | None:
        """How the model is run without packed groups; None: it is run with them."""
        return None if self.generic is None else self.generic.mode

    def refuse_classifier(self) -> None:
        """Raise `UserError` where the checkpoint had no head that predicts tokens, so that the one here is random."""
        if is_classifier(self.model):
            raise UserError(
                f"'{self.model.name_or_path}' is a classifier, such as a reward model, and predicts no tokens: name "
                "the language model that it was made from"
            )

    @torch.no_grad()
    def refuse_diverged(self) -> None:
        """Raise `UserError` where the weights are finite numbers and the log-probs that they give are none."""
        layout, _ = probe(self.vocabulary, self.max_context, self.device)
        if not torch.isfinite(self.logits(self.plain_hidden(layout.tokens, layout.positions, layout))).all():
            raise UserError(f"the model's log-probs are not finite, so it is not saved: {DIVERGED}")

    def copy(self, share_frozen: bool = False) -> Policy:
        """A policy with weights of its own, which are now the same, and the same tokenizer; with `share_frozen` the
        weights that are not trained are the same tensors.
        """
        shared = {id(p): p for p in self.module.parameters() if share_frozen and not p.requires_grad}
        own = Policy(copy.deepcopy(self.module, shared), self.tokenizer, self.compute_name, self.mode)
        if own.fused is not None and self.fused is not None:
            own.fused.checkpointing = self.fused.checkpointing
        return own

    def hidden(self, tokens: Tensor, positions: Tensor, layout: Layout) -> Tensor:
        """The final hidden states of a flat row: `[1, N], [1, N] -> [N, hidden]`."""
        if self.fused is not None and isinstance(layout, PackedGroups):
            if not self._verified:
                self._verify(self.fused, layout)
            if self.fused is not None:
                return self.fused.hidden(tokens, positions, layout)
        return self.plain_hidden(tokens, positions, layout)

    @contextlib.contextmanager
    def beside(self, noted: list[Tensor]) -> Iterator[None]:
        """Put into the order of the packed row what others note of its tokens in forward hooks, `[N, X]` each."""
        if self.generic is None:
            yield  # they are in that order
            return
        before, self.generic.beside = self.generic.beside, noted
        try:
            yield
        finally:
            self.generic.beside = before

    def plain_hidden(self, tokens: Tensor, positions: Tensor, layout: Layout) -> Tensor:
        """The hidden states by the model's own forward pass; those of the fused body are checked against them."""
        if self.generic is not None and isinstance(layout, PackedGroups):
            return self.generic.hidden(layout)
        with self._precision():
            body = self.model.base_model
            body = self.model.model if body is self.model else body  # a class that misnames its own body
            out = body(input_ids=tokens, position_ids=positions, use_cache=False, layout=layout).last_hidden_state
        return out[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """`[M, hidden] -> [M, vocabulary]` in float32, with the model's own scaling and soft-capping.

        The head runs in the type of its weights, outside autocast: log-probs are where a small error costs most.
        """
        head = self.model.get_output_embeddings()
        if self.generic is not None and self.generic.mode.own_head:
            return self.generic.head(hidden if head is None else hidden.to(head.weight.dtype))
        if self.fused is not None and not torch.is_grad_enabled():
            return product(hidden, head.weight)
        logits = head(hidden.to(head.weight.dtype)).float()
        if (scale := getattr(self.config, "logits_scaling", None)) is not None:  # Granite
            logits = logits / scale
        if (scale := getattr(self.config, "logit_scale", None)) is not None:  # Cohere
            logits = logits * scale
        if (cap := getattr(self.config, "final_logit_softcapping", None)) is not None:  # Gemma 2
            logits = torch.tanh(logits / cap) * cap
        return logits

    def _verify(self, fused: FusedBody, batch: PackedGroups) -> None:
        """Compare the fused body with the plain one on the first batch, and leave it where they differ."""
        self._verified = True
        weights = [p for p in self.model.parameters() if p.requires_grad]
        small, _ = probe(self.vocabulary, self.max_context, self.device)
        if reason := verify(fused.hidden, self.plain_hidden, weights, batch, small, self.compute):
            self.fall_back(reason)

    def fall_back(self, reason: str) -> None:
        """Leave the fused path for good, and say so."""
        self.fused, self.plain_because = None, reason
        warnings.warn(
            f"the compiled kernels do not agree with {type(self.model).__name__}'s own forward pass ({reason}), so the "
            "plain path is used from here on: right, but slower",
            stacklevel=3,
        )

    def release(self) -> None:
        """Give the model its own attention back, for a caller who goes on using it."""
        self.set_attention(self._own_attention)

    def set_attention(self, name: str) -> None:
        """Choose the model's attention, where it has one to choose."""
        if self.model._can_set_attn_implementation():
            self.model.set_attn_implementation(name)

    def check(self) -> None:
        """Compare packed groups under Cohort's attention with the model's own forward pass, row by row; where they
        differ, find out how its own forward pass can be used (`policy.proof`), and say so.

        Raises `UserError` for a model that is no causal one, or that cannot be run at all.
        """
        because = packed_differs(self)
        if because is None:
            return
        self.take_generic(find_mode(self, because))
        warnings.warn(f"{type(self.model).__name__} takes the {self.path}", stacklevel=3)

    def take_generic(self, mode: Mode) -> None:
        """Leave packed groups for good, for the model's own attention."""
        self.fused = None
        self.release()
        self.generic = GenericBody(self.model, mode, self._precision)

    @contextlib.contextmanager
    def in_float32(self) -> Iterator[None]:
        """Weights and arithmetic in float32, for as long as the context lasts. No bit of a narrower weight is lost."""
        compute, weights = self.compute, [(p, p.dtype) for p in self.model.parameters()]
        self.compute = torch.float32
        for parameter, _ in weights:
            parameter.data = parameter.data.float()
        try:
            yield
        finally:
            self.compute = compute
            for parameter, kind in weights:
                parameter.data = parameter.data.to(kind)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.compute == torch.float32:
            return contextlib.nullcontext()
        # Without a cache, which would outlive an update where a caller has a context of its own around this one.
        return torch.autocast(self.device.type, dtype=self.compute, cache_enabled=False)


def _turn_end(tokenizer: Any) -> tuple[str, int | None]:
    """The end of a turn in the chat template: ("", its token), or (text that no token stands for, None)."""
    text, token = ChatTemplate(tokenizer).turn_end if has_template(tokenizer) else ("", None)
    return (text, None) if token is None else ("", token)


def _eos_ids(model: Any, tokenizer: Any, turn_end: int | None) -> tuple[int, ...]:
    """Every id that ends a completion: the tokenizer's, the chat template's and those of the generation config."""
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
    return tuple(sorted(ids if turn_end is None else {*ids, turn_end}))
