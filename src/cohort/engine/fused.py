"""Decoding on the CPU in compiled code: one call a token for all rows.

Keys lie in columns, so that the scores of all rows that share a prompt are one product of matrices. A row keeps its
place for as long as it lives: nothing is copied when others retire. The first group is recomputed by the model's own
forward pass.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from cohort.kernels.functions import tile_width
from cohort.kernels.library import Cache, Layer, Model, built
from cohort.policy.attention import PackedGroups, places
from cohort.policy.decode import parts
from cohort.policy.fused import BodyLayer, FusedBody, PrefixStore
from cohort.policy.policy import Policy
from cohort.types import Completion, SampleRequest

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.5}  # of a log-prob; rounding in float32 is 1e-5
IN_BYTES = 0.25  # of log-probs in the mean, where decoding multiplies in bytes: as rollout.max_mismatch


class FusedDecoder:
    """Implements `Decoder` for a policy that has a fused body. All tensors are on the CPU.

    A layer's tensors, of the type that the policy computes in: prefix keys `[S, K, D, Cp]` and values `[S, K, Cp, D]`,
    own keys `[R, K, D, Co]` and values `[R, K, Co, D]`; D is the head size padded to the kernels' tile.
    """

    def __init__(self, policy: Policy, rows: int, precision: str):
        assert isinstance(policy.fused, FusedBody)
        self.policy, self.body, self.rows = policy, policy.fused, rows
        self._packed = self.body.packed(precision)
        self._heads = [layer.heads for layer in self.body.layers]
        self._prefix_length = torch.zeros(0, dtype=torch.long)
        self._free: list[int] = []
        self._prefix: list[tuple[Tensor, Tensor]] = []
        self.own: list[tuple[Tensor, Tensor]] = []
        self._prefix_capacity = self._own_capacity = 0
        self._cos, self._sin = self.body.rotations(torch.arange(1)[None])
        self._model: Model | None = None

    def refresh(self) -> None:
        """See `Decoder`."""
        if self._packed.refresh():
            self._model = None

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[list[int], Tensor]:
        """See `Decoder`."""
        slots = self._slots([len(prompt) for prompt in prompts])
        layout = PackedGroups(prompts)
        store = PrefixStore(torch.tensor(slots), self._prefix_capacity, self._prefix)
        hidden = self.body.hidden(layout.tokens, layout.positions, layout, store)
        return slots, self.policy.logits(hidden[layout.prompt_ends])

    def decode(self, tokens: Tensor, slot: Tensor, place: Tensor, own: Tensor) -> Tensor:
        """See `Decoder`."""
        self._reserve(int(own.max()) + 1)
        model = self._model or self._point()
        x = self.body.model.embed_tokens(tokens)
        logits = torch.empty(len(x), _padded(model.vocabulary), dtype=torch.float32)
        built().decode_step(ctypes.byref(model), len(x), x, slot, place, own, logits)
        return logits[:, : model.vocabulary]

    def release(self, slot: int) -> None:
        """See `Decoder`."""
        self._free.append(slot)

    def move(self, source: Tensor, target: Tensor, tokens: int, place: Tensor) -> None:
        """See `Decoder`: the rows change places."""
        place[source], place[target] = place[target].clone(), place[source].clone()

    def copy(self, source: Tensor, target: Tensor, tokens: int, place: Tensor) -> None:
        """See `Decoder`."""
        source, target = place[source], place[target]
        for keys, values in self.own:
            keys[target, ..., :tokens] = keys[source, ..., :tokens]
            values[target, :, :tokens] = values[source, :, :tokens]

    def resume(self, rows: Sequence[Sequence[int]], prompts: Sequence[int], place: Sequence[int]) -> None:
        """See `Decoder`: rows are computed as prompts are, and what is behind their prompts is kept."""
        self._reserve(max((len(row) - first for row, first in zip(rows, prompts, strict=True)), default=0))
        for part in parts([len(row) for row in rows]):
            given = [rows[i] for i in part]
            capacity = _padded(max(map(len, given)))
            found, layout = self._empty(len(part), capacity), PackedGroups(given)
            store = PrefixStore(torch.arange(len(part)), capacity, found)
            self.body.hidden(layout.tokens, layout.positions, layout, store)
            for (keys, values), (new_keys, new_values) in zip(self.own, found, strict=True):
                for at, i in enumerate(part):
                    first, end = prompts[i], len(rows[i])
                    keys[place[i], ..., : end - first] = new_keys[at, ..., first:end]
                    values[place[i], :, : end - first] = new_values[at, :, first:end]

    def _slots(self, lengths: list[int]) -> list[int]:
        """Free slots for prompts of these lengths."""
        used = len(self._prefix_length)
        reused = [self._free.pop() for _ in range(min(len(lengths), len(self._free)))]
        slots = reused + list(range(used, used + len(lengths) - len(reused)))
        count = max(used, max(slots) + 1)
        capacity = max(self._prefix_capacity, _padded(max(lengths)))
        if count > used or capacity > self._prefix_capacity:
            new = self._empty(count, capacity)
            for (keys, values), (old_keys, old_values) in zip(new, self._prefix, strict=False):
                keys[:used, :, :, : self._prefix_capacity] = old_keys
                values[:used, :, : self._prefix_capacity] = old_values
            self._prefix, self._prefix_capacity = new, capacity
            self._prefix_length = torch.cat([self._prefix_length, self._prefix_length.new_zeros(count - used)])
        self._prefix_length[torch.tensor(slots)] = torch.tensor(lengths)
        self._model = None
        return slots

    def _reserve(self, tokens: int) -> None:
        """Make room for `tokens` own tokens a row."""
        if tokens <= self._own_capacity:
            return
        capacity = max(64, 1 << (tokens - 1).bit_length())
        new = self._empty(self.rows, capacity)
        for (keys, values), (old_keys, old_values) in zip(new, self.own, strict=False):
            keys[..., : self._own_capacity] = old_keys
            values[:, :, : self._own_capacity] = old_values
        self.own, self._own_capacity = new, capacity
        self._model = None

    def _empty(self, count: int, capacity: int) -> list[tuple[Tensor, Tensor]]:
        wide, dtype = [_padded(heads.size) for heads in self._heads], self.body.compute
        return [
            (
                torch.zeros(count, h.kv_heads, d, capacity, dtype=dtype),
                torch.zeros(count, h.kv_heads, capacity, d, dtype=dtype),
            )
            for h, d in zip(self._heads, wide, strict=True)
        ]

    def _point(self) -> Model:
        """Make decode.c see the tensors as they now are."""
        positions = int(self._prefix_length.max()) + self._own_capacity + 1
        if positions > len(self._cos):
            self._cos, self._sin = self.body.rotations(torch.arange(2 * positions)[None])
        packed, norm = self._packed, self.body.model.norm
        layers = [self._point_layer(number, layer) for number, layer in enumerate(self.body.layers)]
        self._layers = (Layer * len(layers))(*layers)
        self._model = Model(
            layers=len(layers),
            hidden=len(norm.weight),
            vocabulary=self.policy.vocabulary,
            layer=ctypes.addressof(self._layers),
            norm=norm.weight,
            eps=norm.variance_epsilon,
            head=packed.head,
            half=packed.half,
        )
        return self._model

    def _point_layer(self, number: int, layer: BodyLayer) -> Layer:
        packed = self._packed
        query_norm, key_norm = layer.head_norms
        (prefix_keys, prefix_values), (own_keys, own_values) = self._prefix[number], self.own[number]
        cache = Cache(
            **asdict(layer.heads),
            slots=len(self._prefix_length),
            prefix_capacity=self._prefix_capacity,
            own_capacity=self._own_capacity,
            prefix_length=self._prefix_length,
            cos=self._cos,
            sin=self._sin,
            query_norm=query_norm,
            key_norm=key_norm,
            half=self.body.compute is torch.bfloat16,
            prefix_keys=prefix_keys,
            prefix_values=prefix_values,
            own_keys=own_keys,
            own_values=own_values,
        )
        return Layer(
            cache=cache,
            first_norm=layer.first_norm.weight,
            second_norm=layer.second_norm.weight,
            eps=layer.first_norm.variance_epsilon,
            qkv=packed.qkv[number],
            out=packed.out[number],
            gate_up=packed.gate_up[number],
            down=packed.down[number],
        )


@torch.no_grad()
def disagreement(
    policy: Policy, request: SampleRequest, completions: tuple[Completion, ...], in_bytes: bool
) -> str | None:
    """What is wrong with the log-probs of a sampled group; None when they are those of the plain path. Where decoding
    multiplies `in_bytes`, their mean is looked at.

    Truncated distributions (top-p, top-k, min-p) are not compared: their log-probs are of another distribution.
    """
    sampling = request.sampling
    if sampling.top_p < 1 or sampling.top_k > 0 or sampling.min_p > 0:
        return None
    rows = [completion.tokens for completion in completions]
    layout = PackedGroups([request.tokens], rows, [0] * len(rows), policy.device)
    hidden = policy.plain_hidden(layout.tokens, layout.positions, layout)
    logits = policy.logits(hidden[layout.predictors(*places(torch.tensor([len(row) for row in rows])))])
    plain = (logits / (sampling.temperature or 1.0)).log_softmax(-1)
    plain = plain.gather(-1, torch.from_numpy(np.concatenate(rows))[:, None])[:, 0]
    sampled = torch.from_numpy(np.concatenate([completion.logprobs for completion in completions]))
    gaps = (plain - sampled).abs()
    apart = (gaps.mean() if in_bytes else gaps.max()).item()
    if apart <= (IN_BYTES if in_bytes else TOLERANCE[policy.compute]):
        return None
    return f"log-probs of sampled tokens differ by {apart:.2g}"


def _padded(n: int) -> int:
    tile = tile_width()
    return -(-n // tile) * tile
