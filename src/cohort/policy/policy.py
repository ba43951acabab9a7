"""The policy: a Hugging Face causal LM and its tokenizer, called on flat token rows.

`Policy.hidden` runs the body of the model under a layout; `Policy.logits` is its head. Both the engine and the learner
go through these two calls, so they share weights and numerics.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cohort.chat import ChatTemplate, has_template
from cohort.kernels.functions import product
from cohort.policy.attention import ATTENTION, Layout, PackedGroups
from cohort.policy.fit import DIVERGED, is_classifier
from cohort.policy.fused import FusedBody, unfit
from cohort.policy.verify import probe, verify
from cohort.types import UserError

MOST_APART = 1e-4  # of log-probs under two kinds of attention, in float32
KNOWN = "Architectures known to work: Qwen2, Qwen3, Llama, Mistral, Gemma 3."


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
    weight_bytes: int
    trained_bytes: int
    compute: str  # the type of the arithmetic, such as bfloat16
    device: str
    dequantised: str  # the type that its weights were stored as in a GGUF file, such as Q4_1; "" for a checkpoint
    path: str  # what runs the forward pass: "compiled kernels", or "plain path (why)"
    config: Any  # of its text model, as transformers has it


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
        self.unheard_end, self.turn_end = _turn_end(tokenizer)
        self.eos_ids = _eos_ids(self.model, tokenizer, self.turn_end)
        _refuse_rope(self.config)
        if len(tokenizer) > self.vocabulary:
            raise UserError(
                f"the tokenizer has {len(tokenizer)} tokens but the model only {self.vocabulary}: use the model's own "
                "tokenizer, or call model.resize_token_embeddings(len(tokenizer)) and save both again"
            )
        self._own_attention = self.config._attn_implementation
        self.model.set_attn_implementation(ATTENTION)
        self.module.eval()
        self.plain_because = unfit(self.model)  # why there is no fused path; None while there is one
        self.fused: FusedBody | None = None if self.plain_because else FusedBody(self.model, self.compute)
        self._verified = False

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
            weight_bytes=sum(p.numel() * p.element_size() for p in parameters),
            trained_bytes=sum(p.numel() * p.element_size() for p in trained),
            compute=self.compute_name,
            device=str(self.device),
            dequantised=getattr(self.model, "dequantised_from", ""),
            path="compiled kernels" if self.fused is not None else f"plain path ({self.plain_because})",
            config=self.config,
        )

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

    def copy(self) -> Policy:
        """A policy with weights of its own, which are now the same, and the same tokenizer."""
        return Policy(copy.deepcopy(self.module), self.tokenizer, self.compute_name)

    def hidden(self, tokens: Tensor, positions: Tensor, layout: Layout) -> Tensor:
        """The final hidden states of a flat row: `[1, N], [1, N] -> [N, hidden]`."""
        if self.fused is not None and isinstance(layout, PackedGroups):
            if not self._verified:
                self._verify(self.fused, layout)
            if self.fused is not None:
                return self.fused.hidden(tokens, positions, layout)
        return self.plain_hidden(tokens, positions, layout)

    def plain_hidden(self, tokens: Tensor, positions: Tensor, layout: Layout) -> Tensor:
        """The hidden states by the model's own forward pass; those of the fused body are checked against them."""
        with self._precision():
            out = self.model.base_model(
                input_ids=tokens, position_ids=positions, use_cache=False, layout=layout
            ).last_hidden_state
        return out[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """`[M, hidden] -> [M, vocabulary]` in float32, with the model's own scaling and soft-capping.

        The head runs in the type of its weights, outside autocast: log-probs are where a small error costs most.
        """
        head = self.model.get_output_embeddings()
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
        self.model.set_attn_implementation(self._own_attention)

    def check(self) -> None:
        """Compare packed groups under Cohort's attention with the model's own forward pass, row by row, and refuse a
        model that differs, before it trains on something else than it seems to.

        Two prompts and four rollouts share one flat row, longer than a small sliding window. A model that mixes
        neighbouring tokens outside attention (convolutions, state spaces), or whose attention does more than a layout
        knows of (sinks, soft-capping, learned biases), is found out here. Both compute in float32, whatever the policy
        computes in: rounding to bfloat16 moves the log-probs of a trained model further than some wrong algorithms do.
        """
        name = type(self.model).__name__
        layout, texts = probe(self.vocabulary, self.max_context, self.device)
        counter = _Counted(layout)
        try:
            with torch.no_grad(), self._in_float32():
                hidden = self.plain_hidden(layout.tokens, layout.positions, counter)
                worst = max(
                    self._difference(layout, hidden, row, text, len(text) - n)
                    for row, (text, n) in enumerate(zip(texts, layout.rollout_lengths, strict=True))
                )
        except (NotImplementedError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            raise UserError(f"{name} cannot be run by Cohort ({error}). {KNOWN}") from None
        finally:
            self.model.set_attn_implementation(ATTENTION)
        if counter.layers != list(range(self.config.num_hidden_layers)):
            raise UserError(f"{name} has layers that are not attention, or attention of its own. {KNOWN}")
        if not worst <= MOST_APART:
            raise UserError(
                f"{name} gives other log-probs under Cohort's attention than under its own (they differ by "
                f"{worst:.2g}, more than {MOST_APART:g}), so it cannot be trained exactly. {KNOWN}"
            )

    def _difference(self, layout: PackedGroups, hidden: Tensor, row: int, tokens: list[int], start: int) -> float:
        """The largest difference between one packed rollout's log-probs and the model's own pass over it alone; as a
        sixteenth of the largest log-prob, by which rounding grows, where that is beyond 1.
        """
        n = len(tokens) - start
        at = layout.predictors(torch.full((n,), row, device=self.device), torch.arange(n, device=self.device))
        ours = self.logits(hidden[at])
        self.model.set_attn_implementation("eager")
        try:
            with self._precision():
                theirs = self.model(input_ids=torch.tensor([tokens], device=self.device), use_cache=False).logits
        finally:
            self.model.set_attn_implementation(ATTENTION)
        theirs = theirs[0, start - 1 : -1].float().log_softmax(-1)
        return ((ours.log_softmax(-1) - theirs).abs().max() / (theirs.abs().max() / 16).clamp(min=1)).item()

    @contextlib.contextmanager
    def _in_float32(self) -> Iterator[None]:
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


class _Counted:
    """A layout that notes which layers asked it."""

    def __init__(self, layout: PackedGroups):
        self.layout = layout
        self.layers: list[int] = []

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        self.layers.append(layer)
        return self.layout.attend(layer, query, key, value, scale, window)


def _refuse_rope(config: Any) -> None:
    """These choose their frequencies by the longest position in sight, which in a flat row is a neighbour's."""
    found = repr(getattr(config, "rope_parameters", None))
    for kind in ("longrope", "dynamic"):
        if f"'{kind}'" in found:
            raise UserError(
                f"the model's rotary embedding is '{kind}', whose values depend on the longest sequence of the batch, "
                f"so a rollout would depend on its neighbours. {KNOWN}"
            )


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
