"""A copy of a model's weights in the order in which decoding reads them, made once for every version of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cohort.kernels.functions import tile_width
from cohort.kernels.library import built
from cohort.kernels.structures import Linear

__all__ = ["PackedWeights"]


class PackedWeights:
    """Panels of `tile_width()` outputs, each `[inputs, tile]`, in float32, or in bfloat16 where the
    processor multiplies that.

    `refresh` brings it up to date; what `qkv`, `out`, `gate_up`, `down` (one a layer) and `head` point at stays put.
    """

    def __init__(self, model: Any, layers: Sequence[Any], compute: torch.dtype):
        self._model = model
        self._layers = layers
        # Without such products the copy holds the bfloat16 values as float32: the same model, at float32's speed.
        self._rounded = compute is torch.bfloat16
        self.half = self._rounded and bool(built().half_products())
        self._kept: list[Tensor] = []
        self._version: tuple[Any, ...] | None = None
        self.qkv = [self._room(layer.qkv) for layer in layers]
        self.out = [self._room(layer.out) for layer in layers]
        self.gate_up = [self._room(layer.gate_up) for layer in layers]
        self.down = [self._room(layer.down) for layer in layers]
        self.head = self._room((model.get_output_embeddings(),), half=False)

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the weights if they have changed since the last time."""
        version = tuple(n for p in self._model.parameters() for n in (p._version, p.data_ptr()))
        if version == self._version:
            return
        for layer, qkv, out, gate_up, down in zip(
            self._layers, self.qkv, self.out, self.gate_up, self.down, strict=True
        ):
            self._fill(qkv, [torch.cat([_weight(module) for module in layer.qkv])], layer.qkv)
            self._fill(out, [_weight(layer.out[0])], layer.out)
            self._fill(gate_up, [_weight(module) for module in layer.gate_up], layer.gate_up)
            self._fill(down, [_weight(layer.down[0])], layer.down)
        head = self._model.get_output_embeddings()
        self._fill(self.head, [_weight(head)], (head,), half=False)
        self._version = version

    def _room(self, modules: Sequence[Any], half: bool | None = None) -> Linear:
        half = self.half if half is None else half
        inputs, outputs = modules[0].in_features, sum(module.out_features for module in modules)
        tile = tile_width()
        panels = (
            sum(-(-module.out_features // tile) for module in modules) if len(modules) == 2 else -(-outputs // tile)
        )
        weight = torch.zeros(panels * tile * inputs, dtype=torch.bfloat16 if half else torch.float32)
        bias = torch.zeros(panels * tile) if any(module.bias is not None for module in modules) else None
        self._kept += [x for x in (weight, bias) if x is not None]
        return Linear(weight=weight, bias=bias, inputs=inputs, outputs=outputs)

    def _fill(self, to: Linear, weights: list[Tensor], modules: Sequence[Any], half: bool | None = None) -> None:
        """Several weights take panels in turn; their biases likewise."""
        half = self.half if half is None else half
        rounded = self._rounded and to is not self.head
        for turn, weight in enumerate(weights):
            source = weight.bfloat16().float() if rounded and not half else weight.contiguous()
            built().pack(*source.shape, source, half, turn, len(weights), to.weight)
        if to.bias:
            bias = next(x for x in self._kept if x.data_ptr() == to.bias)
            parts = [_bias(module) for module in modules]
            if len(weights) == 1:
                whole = torch.cat(parts)
                bias[: len(whole)] = whole
            else:
                tile = tile_width()
                panels = bias.view(-1, len(weights), tile)
                for turn, part in enumerate(parts):
                    panels[:, turn] = nn.functional.pad(part, (0, -len(part) % tile)).view(-1, tile)


def _weight(module: Any) -> Tensor:
    """A linear module's weight `[out, in]`, an adapter merged into it."""
    if type(module) is nn.Linear:
        return module.weight.detach()
    base = module.base_layer.weight.detach()
    if module.disable_adapters:
        return base
    return base + sum(module.get_delta_weight(name) for name in module.active_adapters if name in module.lora_A)


def _bias(module: Any) -> Tensor:
    base = getattr(module, "base_layer", module)
    return base.bias.detach() if base.bias is not None else torch.zeros(base.out_features)
