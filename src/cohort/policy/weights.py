"""A copy of a model's weights in the order in which decoding reads them, made once for every version of the weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cohort.kernels.functions import tile_width
from cohort.kernels.library import Linear, built

VALUES = 64  # of each tensor, that a fingerprint reads
GROUP = 64  # inputs that share a scale in bytes, as in vector.h
LARGE = 1 << 26  # bytes of a copy, from which on it is freed while the weights learn


@torch.no_grad()
def fingerprint(model: Any) -> str:
    """64 hex digits of weights as they are, bit by bit: SHA-256 of the name, shape and type of every parameter, those
    of an adapter included, and of some values of each.

    An optimizer step moves nearly all values, so a copy from before it has another one, and so have weights under
    another name, or with an adapter lost. Some thousand values are read, a millisecond.
    """
    named = list(model.named_parameters())
    digest = hashlib.sha256("".join(f"{name} {list(p.shape)} {p.dtype}\n" for name, p in named).encode())
    for kind in dict.fromkeys(p.dtype for _, p in named):
        # An odd number of values lies between them, or all would be of one column.
        some = [p.detach().flatten()[:: p.numel() // VALUES | 1] for _, p in named if p.dtype is kind]
        digest.update(torch.cat(some).view(torch.uint8).cpu().numpy().tobytes())
    return digest.hexdigest()


class PackedWeights:
    """Panels of `tile_width()` outputs, each `[inputs, tile]`, in float32, in bfloat16 where the processor multiplies
    that, or with `precision` int8 in bytes: 64 weights of an output are divided by the largest of them, over 127, and
    rounded.

    `refresh` brings it up to date; what `qkv`, `out`, `gate_up`, `down` (one a layer) and `head` point at stays put
    until `release`.
    """

    def __init__(self, model: Any, layers: Sequence[Any], compute: torch.dtype, precision: str):
        self._model, self._bytes = model, precision == "int8"
        # Without such products the copy holds the bfloat16 values as float32: the same model, at float32's speed.
        self._rounded = compute is torch.bfloat16 and not self._bytes
        self.half = self._rounded and bool(built().half_products())
        self._parts: list[tuple[Linear, Sequence[Any], Tensor | None]] = []  # where to, modules, bias
        self._kept: list[Tensor] = []  # what the addresses of the parts' weights point into
        self._scales: list[Tensor | None] = []  # what those of scales point into
        self._version: tuple[Any, ...] | None = None
        self.fingerprint = ""  # of the weights that the copy was made of
        self.qkv, self.out, self.gate_up, self.down = (
            [self._room(getattr(layer, name), self.half) for layer in layers]
            for name in ("qkv", "out", "gate_up", "down")
        )
        self.head = self._room((model.get_output_embeddings(),), half=False)

    def release(self) -> None:
        """Free a large copy, of weights that are about to change: what they learn with is to have its room."""
        if sum(weight.nbytes for weight in self._kept) >= LARGE:
            self._version = None
            for weight in self._kept:
                weight.untyped_storage().resize_(0)

    @torch.no_grad()
    def refresh(self) -> bool:
        """Copy the weights if they have changed since the last time. Whether they lie elsewhere now."""
        version = tuple(n for p in self._model.parameters() for n in (p._version, p.data_ptr()))
        if version == self._version:
            return False
        freed = not self._kept[0].untyped_storage().nbytes()
        for (to, _, _), weight in zip(self._parts, self._kept, strict=True) if freed else ():
            weight.untyped_storage().resize_(weight.nbytes)
            to.weight = weight.data_ptr()
        for to, modules, bias in self._parts:
            weights, biases = [_weight(module) for module in modules], [_bias(module) for module in modules]
            if len(modules) == 3:  # queries, keys and values are one matrix; gates and ups take panels in turn
                weights, biases = [torch.cat(weights)], [torch.cat(biases)]
            half, rounded = self.half and to is not self.head, self._rounded and to is not self.head
            for turn, weight in enumerate(weights):
                source = weight.bfloat16().float() if rounded and not half else weight.contiguous()
                built().pack(*source.shape, source, half, turn, len(weights), to.weight, to.scale, to.shift)
            if bias is not None:
                panels = bias.view(-1, len(biases), tile_width())
                for turn, part in enumerate(biases):
                    rows = nn.functional.pad(part, (0, -len(part) % tile_width())).view(-1, tile_width())
                    panels[: len(rows), turn] = rows
        self._version, self.fingerprint = version, fingerprint(self._model)
        return freed

    def _room(self, modules: Sequence[Any], half: bool) -> Linear:
        inputs, outputs, tile = modules[0].in_features, [module.out_features for module in modules], tile_width()
        matrices = outputs if len(modules) == 2 else [sum(outputs)]
        panels = sum(-(-rows // tile) for rows in matrices)
        kind = torch.int8 if self._bytes else torch.bfloat16 if half else torch.float32
        weight = torch.zeros(panels * tile * (-(-inputs // 4) * 4 if self._bytes else inputs), dtype=kind)
        biased = any(module.bias is not None for module in modules)
        bias = torch.zeros(panels * tile, dtype=torch.float32) if biased else None
        groups = panels * tile * -(-inputs // GROUP)
        scale = torch.zeros(groups, dtype=torch.float32) if self._bytes else None
        shift = torch.zeros(groups, dtype=torch.int32) if self._bytes else None
        self._kept.append(weight)
        self._scales += [scale, shift]
        to = Linear(weight=weight, bias=bias, scale=scale, shift=shift, inputs=inputs, outputs=sum(outputs))
        self._parts.append((to, modules, bias))
        return self._parts[-1][0]


def _weight(module: Any) -> Tensor:
    """A linear module's weight `[out, in]`, an adapter merged into it."""
    if type(module) is nn.Linear:
        return module.weight.detach()
    base = module.base_layer.weight.detach()
    if module.disable_adapters or module.merged:
        return base
    return base + sum(module.get_delta_weight(name) for name in module.active_adapters if name in module.lora_A)


def _bias(module: Any) -> Tensor:
    base = getattr(module, "base_layer", module)
    return base.bias.detach() if base.bias is not None else base.weight.new_zeros(base.out_features)
