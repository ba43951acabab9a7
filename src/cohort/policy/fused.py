"""The decoder body that Llama, Mistral, Qwen 2 and Qwen 3 share, in few operations, for the CPU.

It reads the Hugging Face model's own parameters and computes what the model computes: the model stays what is trained
and saved, and its own forward pass stays the plain path that this one is checked against.
"""

from __future__ import annotations

import ctypes
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cohort.kernels.functions import (
    Heads,
    Sequences,
    add_norm,
    attend,
    attention_of,
    linear,
    normed,
    rounded,
    swiglu,
    swiglu_forward,
)
from cohort.kernels.library import built, keep_freed_memory, kernels, why_not
from cohort.policy.attention import PackedGroups
from cohort.policy.weights import PackedWeights

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


def changes_with_length(config: Any) -> bool:
    """Whether the rotary embedding is another one for all tokens of a row that grows beyond some length."""
    found = repr(getattr(config, "rope_parameters", None))
    return any(f"'{kind}'" in found for kind in ("longrope", "dynamic"))


def unfit(model: Any) -> str | None:
    """Why the fused body cannot run this model; None when it can."""
    if reason := unfit_kind(type(model).__name__, model.config.get_text_config()):
        return reason
    if any(p.device.type != "cpu" for p in model.parameters()):
        return "the model is not on the CPU"
    if any(p.dtype != torch.float32 for p in model.parameters()):
        return "the weights are not float32"
    return _unfit_module(model) or unfit_here()


def unfit_kind(name: str, config: Any) -> str | None:
    """The same of a class of models, and the configuration of one."""
    if name not in ARCHITECTURES:
        return f"{name} is none of {', '.join(ARCHITECTURES)}"
    if config.hidden_act not in ("silu", "swish"):
        return f"its activation is {config.hidden_act}"
    return "its rotary embedding is another one for long rows" if changes_with_length(config) else None


def unfit_here() -> str | None:
    """Why it cannot run on this machine."""
    if not torch.backends.mkldnn.is_available():
        return "this build of PyTorch has no oneDNN"
    if kernels() is None:
        return f"there are no compiled kernels: {why_not()}"
    return None


def _unfit_module(model: Any) -> str | None:
    """Which module is more than its weights; None where all that wraps one is a plain adapter of a projection or of the
    embedding.
    """
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None:
        return "its head is more than one matrix, such as one with an adapter"
    for name, module in model.named_modules():
        if not (hasattr(module, "base_layer") or hasattr(module, "modules_to_save")):
            continue
        base = type(getattr(module, "base_layer", None))
        plain = base in (nn.Linear, nn.Embedding) and hasattr(module, "lora_A") and not module.lora_variant
        if not plain or any(module.lora_bias.values()):
            return f"{name} has an adapter that is no plain LoRA"
    return None


@dataclass(frozen=True, slots=True)
class PrefixStore:
    """Where a prefill leaves the prompts' keys and values: slots `[P]` of a layer's `[S, K, D, capacity]` keys and
    `[S, K, capacity, D]` values.
    """

    slots: Tensor
    capacity: int
    layers: list[tuple[Tensor, Tensor]]


class FusedBody:
    """Embedding, layers and final norm of a model for which `unfit` found nothing. `compute` is float32 or bfloat16."""

    def __init__(self, model: Any, compute: torch.dtype):
        keep_freed_memory()
        self.model = model.model
        self.config = model.config.get_text_config()
        self.compute = compute
        self.checkpointing = False  # whether a layer's activations are computed again in the backward pass
        self.layers = [BodyLayer(layer, self.config) for layer in self.model.layers]
        if compute is torch.float32:
            for layer in self.layers:
                _lay_side_by_side(layer.qkv)
                _lay_side_by_side(layer.gate_up)
            _leave_the_file(model)
        self._whole = model
        self._copies: dict[tuple[int, ...], tuple[tuple[int, ...], Tensor]] = {}
        self._packed: dict[str, PackedWeights] = {}

    def packed(self, precision: str) -> PackedWeights:
        """The weights as decoding reads them, to be multiplied in the type that is computed in ("auto") or in bytes
        ("int8"); made when something is first sampled so.
        """
        if precision not in self._packed:
            self._packed[precision] = PackedWeights(self._whole, self.layers, self.compute, precision)
        return self._packed[precision]

    def will_change(self) -> None:
        """The weights are about to learn: the copy that decodes makes room for it."""
        for packed in self._packed.values():
            packed.release()

    def hidden(
        self, tokens: Tensor, positions: Tensor, layout: PackedGroups, store: PrefixStore | None = None
    ) -> Tensor:
        """The final hidden states of a packed row, `[1, N], [1, N] -> [N, hidden]` float32."""
        count = tokens.shape[1]
        cos, sin = self.rotations(rounded(positions[0])[None])
        sequences = Sequences(*layout.sequences, cos, sin, count)
        x, change = self.model.embed_tokens(rounded(tokens[0])), None
        for number in range(len(self.layers)):
            if self.checkpointing and store is None and torch.is_grad_enabled():
                given = number, x, change, sequences
                x, change = checkpoint(self._layer, *given, use_reentrant=False, preserve_rng_state=False)
            else:
                x, change = self._layer(number, x, change, sequences, store)
        return self.final(x, change)[:count]

    def _layer(
        self, number: int, x: Tensor, change: Tensor | None, sequences: Sequences, store: PrefixStore | None = None
    ) -> tuple[Tensor, Tensor]:
        """The residual stream after a layer, but for the last change to it."""
        layer = self.layers[number]
        x, h = _add_norm(x, change, layer.first_norm, self.compute)
        qkv = self._project(h, layer.qkv, self._norm_again(x, layer.first_norm))
        if store is not None:
            what = attention_of(qkv, *layer.head_norms, layer.heads, sequences)
            built().attention_store(ctypes.byref(what), store.slots, store.capacity, *store.layers[number])
        change = self._project(attend(qkv, *layer.head_norms, layer.heads, sequences), layer.out)
        x, h = _add_norm(x, change, layer.second_norm, self.compute)
        gate_up = self._project(h, layer.gate_up, self._norm_again(x, layer.second_norm))
        return x, self._project(swiglu(gate_up), layer.down, functools.partial(swiglu_forward, gate_up.detach()))

    def _norm_again(self, x: Tensor, norm: Any) -> Callable[[], Tensor]:
        """Norms, and products of gates and ups, cost little: they are computed again instead of kept."""
        return functools.partial(normed, x.detach(), norm.weight.detach(), norm.variance_epsilon, self.compute)

    def rotations(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the rotary embedding, float32 `[n, D / 2]` of positions `[1, n]`."""
        cos, sin = self.model.rotary_emb(torch.empty(0, dtype=torch.float32), positions)
        half = cos.shape[-1] // 2
        return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()

    def final(self, x: Tensor, change: Tensor | None) -> Tensor:
        """The final norm, float32."""
        return _add_norm(x, change, self.model.norm, torch.float32)[1]

    def _project(self, x: Tensor, modules: tuple[nn.Module, ...], again: Callable[[], Tensor] | None = None) -> Tensor:
        """The outputs of linear modules that read the same input, side by side; `again` computes that once more."""
        if not all(type(module) is nn.Linear for module in modules):  # an adapter's wrapper
            with torch.autocast("cpu", torch.bfloat16, enabled=self.compute is torch.bfloat16, cache_enabled=False):
                return torch.cat([module(x) for module in modules], -1)
        weights = [module.weight for module in modules]
        biases = [module.bias for module in modules if module.bias is not None]
        bias = self._copy(biases) if biases else None  # type: ignore[arg-type]
        return linear(x, self._copy(weights), bias, weights, biases, again)  # type: ignore[arg-type]

    def _copy(self, parameters: list[Tensor]) -> Tensor:
        """The parameters one under the other in the compute type: themselves, or made once for each version of them."""
        if self.compute is torch.float32 and _are_side_by_side(parameters):
            first = parameters[0].detach()
            return first.as_strided((sum(map(len, parameters)), *first.shape[1:]), first.stride())
        key = tuple(id(p) for p in parameters)
        version = tuple(n for p in parameters for n in (p._version, p.data_ptr()))
        found = self._copies.get(key)
        if found is None or found[0] != version:
            with torch.no_grad():
                found = version, torch.cat([p.to(self.compute) for p in parameters])
            self._copies[key] = found
        return found[1]


def _add_norm(x: Tensor, change: Tensor | None, norm: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The residual stream with the last change to it, and the norm of that in `dtype`."""
    return add_norm(x, change, norm.weight, norm.variance_epsilon, dtype)


def _are_side_by_side(parameters: Sequence[Tensor]) -> bool:
    ends = [p.data_ptr() + p.nbytes for p in parameters]
    whole = parameters[0].untyped_storage().data_ptr()
    return all(
        p.data_ptr() == end and p.untyped_storage().data_ptr() == whole for p, end in zip(parameters[1:], ends)
    ) and all(p.is_contiguous() for p in parameters)


@torch.no_grad()
def _lay_side_by_side(modules: Sequence[nn.Module]) -> None:
    """Matrices that read one input are one matrix in memory: they are multiplied together without a copy of them."""
    weights: list[Any] = [module.weight for module in modules if type(module) is nn.Linear]
    if len(weights) == len(modules) and not _are_side_by_side(weights):
        for weight, part in zip(weights, torch.cat(weights).split([len(w) for w in weights]), strict=True):
            weight.data = part


@torch.no_grad()
def _leave_the_file(model: nn.Module) -> None:
    """Weights that were loaded are parts of one mapped file, which stays in memory until none of them is."""
    sizes = Counter[int]()
    for p in model.parameters():
        sizes[p.untyped_storage().data_ptr()] += p.nbytes
    for p in model.parameters():
        if p.untyped_storage().nbytes() > 1.01 * sizes[p.untyped_storage().data_ptr()]:
            p.data = p.data.clone()


class BodyLayer:
    """The modules of one decoder layer, in the order of their use."""

    def __init__(self, layer: Any, config: Any):
        attention, mlp = layer.self_attn, layer.mlp
        self.first_norm = layer.input_layernorm
        self.qkv = (attention.q_proj, attention.k_proj, attention.v_proj)
        norms = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
        self._head_norms = norms
        self.out = (attention.o_proj,)
        self.second_norm = layer.post_attention_layernorm
        self.gate_up = (mlp.gate_proj, mlp.up_proj)
        self.down = (mlp.down_proj,)
        mistral = type(attention).__name__ == "MistralAttention"  # the only one that asks its config each time
        self.heads = Heads(
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            size=attention.head_dim,
            eps=norms[0].variance_epsilon if norms[0] is not None else 0.0,
            scale=attention.scaling,
            window=(config.sliding_window if mistral else getattr(attention, "sliding_window", None)) or 0,
        )

    @property
    def head_norms(self) -> tuple[Tensor | None, Tensor | None]:
        """Weights `[D]` of the norms of query and of key heads, where there are such norms."""
        query, key = (None if norm is None else norm.weight for norm in self._head_norms)
        return query, key
