"""Decoding by the model's own forward pass: one prefix a group, one slot a row.

A prompt's keys and values are held once, however many completions continue it. Each running row owns a slot for the
tokens it has sampled itself. Running rows always are slots 0..n-1, so the own part is a view, never a gather: a
retiring row's slot is filled by the last running one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from cohort.policy.attention import EVERYTHING, PackedGroups, Reach, Scores, bent

if TYPE_CHECKING:
    from cohort.policy.policy import Policy

PREFILL_TOKENS = 16384  # of prompts that run through the model together, where more than one does
HIDDEN = -1e30  # a masked score: finite, so that a row whose prefix lies wholly outside the window stays a number


def parts(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of sequences of these lengths, in order, as many at a time as may run through the model together."""
    part, tokens = list[int](), 0
    for i, length in enumerate(lengths):
        if part and tokens + length > PREFILL_TOKENS:
            yield part
            part, tokens = [], 0
        part.append(i)
        tokens += length
    if part:
        yield part


class PlainDecoder:
    """Implements `Decoder` for every policy. Row i's place is i.

    There is room for `rows` rows and for as many prefixes as are live, grown on demand. Tensors a layer: prefix keys
    and values `[S, K, Lp, D]`, own keys and values `[rows, K, T, D]`.
    """

    def __init__(self, policy: Policy, rows: int):
        self.policy = policy
        self.rows = rows
        self.prefix: list[tuple[Tensor, Tensor]] = []
        self.own: list[tuple[Tensor, Tensor]] = []
        self.prefix_length = torch.zeros(0, dtype=torch.long, device=policy.device)  # [S], 0: the slot is free
        self._free: list[int] = []

    def refresh(self) -> None:
        """See `Decoder`: the weights are the model's own."""
        return

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[list[int], Tensor]:
        """See `Decoder`."""
        layout = PackedGroups(prompts, device=self.policy.device, keep_kv=True)
        hidden = self.policy.hidden(layout.tokens, layout.positions, layout)
        logits = self.policy.logits(hidden[layout.prompt_ends])
        assert layout.kv is not None
        return self._store([len(prompt) for prompt in prompts], layout.kv), logits

    def decode(self, tokens: Tensor, slot: Tensor, place: Tensor, own: Tensor) -> Tensor:
        """See `Decoder`."""
        layout = DecodeLayout(self, slot, own)
        return self.policy.logits(self.policy.hidden(tokens[None], layout.positions[None], layout))

    def release(self, slot: int) -> None:
        """See `Decoder`."""
        self.prefix_length[slot] = 0
        self._free.append(slot)

    def compact(self) -> Tensor | None:
        """Keep only the prefix slots that are live, once these are fewer than half: an empty one costs as much as they
        do. Old slot -> new slot; None: all are kept.
        """
        if len(self._free) * 2 <= len(self.prefix_length):
            return None
        live = self.prefix_length.nonzero()[:, 0]
        width = int(self.prefix_length.max())
        self.prefix = [(k[live, :, :width], v[live, :, :width]) for k, v in self.prefix]
        renumbered = torch.zeros_like(self.prefix_length)
        renumbered[live] = torch.arange(len(live), device=live.device)
        self.prefix_length = self.prefix_length[live]
        self._free = []
        return renumbered

    def copy(self, source: Tensor, target: Tensor, tokens: int, place: Tensor) -> None:
        """See `Decoder`."""
        for keys, values in self.own:
            keys[target, :, :tokens] = keys[source, :, :tokens]
            values[target, :, :tokens] = values[source, :, :tokens]

    move = copy  # whoever has moved has the keys and values where it is

    def resume(self, rows: Sequence[Sequence[int]], prompts: Sequence[int], place: Sequence[int]) -> None:
        """See `Decoder`: rows are computed as prompts are, and what is behind their prompts is kept."""
        self.reserve(max((len(row) - first for row, first in zip(rows, prompts, strict=True)), default=0))
        for part in parts([len(row) for row in rows]):
            layout = PackedGroups([rows[i] for i in part], device=self.policy.device, keep_kv=True)
            self.policy.hidden(layout.tokens, layout.positions, layout)
            assert layout.kv is not None
            for (keys, values), (new_keys, new_values) in zip(self.own, layout.kv, strict=True):
                for at, i in enumerate(part):
                    first, end = prompts[i], len(rows[i])
                    keys[place[i], :, : end - first] = new_keys[at, :, first:end]
                    values[place[i], :, : end - first] = new_values[at, :, first:end]

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` own tokens a row."""
        if self.own and self.own[0][0].shape[2] >= tokens:
            return
        room = max(64, 1 << (tokens - 1).bit_length())
        if not self.own:
            self.own = [(self._none_of(k), self._none_of(v)) for k, v in self.prefix]
        for layer, (k, v) in enumerate(self.own):
            self.own[layer] = (_grow(k, self.rows, room), _grow(v, self.rows, room))

    def _none_of(self, x: Tensor) -> Tensor:
        """No own tokens of every row, in the shape of a layer's prefixes: layers may differ in heads and their size."""
        return x.new_zeros(self.rows, x.shape[1], 0, x.shape[3])

    def _store(self, lengths: list[int], kv: list[tuple[Tensor, Tensor]]) -> list[int]:
        """Store the keys and values of freshly prefilled prompts (`[P, K, Lp, D]` a layer); return their slots."""
        reused = [self._free.pop() for _ in range(min(len(lengths), len(self._free)))]
        used = len(self.prefix_length)
        slots = reused + list(range(used, used + len(lengths) - len(reused)))
        width = kv[0][0].shape[2]
        if not self.prefix:
            self.prefix = [(k.new_zeros(0, *k.shape[1:]), v.new_zeros(0, *v.shape[1:])) for k, v in kv]
        grown = (max(max(slots) + 1, len(self.prefix_length)), max(width, self.prefix[0][0].shape[2]))
        for layer, (k, v) in enumerate(self.prefix):  # layer by layer: old and new exist together for one only
            self.prefix[layer] = (_grow(k, *grown), _grow(v, *grown))
        if (missing := grown[0] - len(self.prefix_length)) > 0:
            self.prefix_length = torch.nn.functional.pad(self.prefix_length, (0, missing))
        at = torch.tensor(slots, device=self.prefix_length.device)
        self.prefix_length[at] = torch.tensor(lengths, device=at.device)
        for (keys, values), (new_keys, new_values) in zip(self.prefix, kv, strict=True):
            keys[at, :, :width] = new_keys
            values[at, :, :width] = new_values
        return slots


class Sharing(NamedTuple):
    """Which rows share a prefix, side by side: `[S, g]`, S prefixes, g at least the most rows that any of them has."""

    place: Tensor  # [n] where each row stands in the flattened [S, g]; S * g: nowhere, it is no row
    most: int  # g
    width: int  # columns of own tokens that are looked at
    prefix_width: int  # and of prefixes


def sharing(cache: PlainDecoder, prefix_slot: Tensor, own_length: Tensor) -> Sharing:
    """Of the rows of one step, as few columns as they need. It waits for the device."""
    counts = torch.bincount(prefix_slot, minlength=len(cache.prefix_length))
    most = int(counts.max())
    order = torch.argsort(prefix_slot, stable=True)
    first = torch.cumsum(counts, 0) - counts
    place = torch.empty_like(prefix_slot)
    row = torch.arange(len(prefix_slot), device=prefix_slot.device)
    place[order] = prefix_slot[order] * most + (row - first[prefix_slot[order]])
    return Sharing(place, most, int(own_length.max()) + 1, int(cache.prefix_length.max()))


class DecodeLayout:
    """One new token for each of n rows. Attention is over the row's prefix and over its own tokens, in two parts that
    are merged by their softmax sums, so a prefix is read in place by all rows that share it.
    """

    def __init__(self, cache: PlainDecoder, prefix_slot: Tensor, own_length: Tensor, shared: Sharing | None = None):
        """prefix_slot `[n]`: which prefix each row continues; own_length `[n]`: its own tokens before this one.
        `shared` is found from them when not given; where it is, nothing waits for the device.
        """
        self._cache = cache
        self._row = torch.arange(len(prefix_slot), device=prefix_slot.device)
        self._own_length = own_length
        found = sharing(cache, prefix_slot, own_length) if shared is None else shared
        self._place, self._sharing, self._width, self._prefix_width = found
        cache.reserve(self._width)
        self._lengths = cache.prefix_length  # [S]
        self._prefixes = len(self._lengths)
        self.positions = cache.prefix_length[prefix_slot] + own_length  # [n]
        self._masks: dict[Reach, tuple[Tensor, Tensor]] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        """See `Layout.attend`; here N = n rows."""
        n, heads, size = query.shape
        kv_heads = key.shape[1]
        own_keys, own_values = self._cache.own[layer]
        own_keys[self._row, :, self._own_length] = key.to(own_keys.dtype)
        own_values[self._row, :, self._own_length] = value
        prefix_mask, own_mask = self._mask(scores.reach)
        query = query.to(value.dtype).reshape(n, kv_heads, heads // kv_heads, size) * scores.scale

        own_keys, own_values = own_keys[:n, :, : self._width], own_values[:n, :, : self._width]
        own = _partial(query, own_keys, own_values, own_mask, scores.softcap)

        prefix_keys, prefix_values = self._cache.prefix[layer]
        prefix_keys, prefix_values = prefix_keys[:, :, : self._prefix_width], prefix_values[:, :, : self._prefix_width]
        shared = query.new_zeros(self._prefixes * self._sharing + 1, *query.shape[1:])
        shared[self._place] = query
        shared = self._by_prefix(shared[:-1])  # [S, K, g * R, D]
        parts = _partial(shared, prefix_keys, prefix_values, prefix_mask, scores.softcap)
        real = self._place.clamp(max=self._prefixes * self._sharing - 1)
        prefix = tuple(self._by_row(part, kv_heads)[real] for part in parts)
        sinks = None if scores.sinks is None else scores.sinks.float().view(kv_heads, -1, 1)  # [K, R, 1]
        return _merge(own, prefix, sinks).reshape(n, heads, -1).to(value.dtype)

    def _by_prefix(self, x: Tensor) -> Tensor:
        """`[S * g, K, R, D] -> [S, K, g * R, D]`."""
        x = x.view(self._prefixes, self._sharing, *x.shape[1:])
        return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1, x.shape[4])

    def _by_row(self, x: Tensor, kv_heads: int) -> Tensor:
        """`[S, K, g * R, X] -> [S * g, K, R, X]`."""
        x = x.view(self._prefixes, kv_heads, self._sharing, -1, x.shape[-1])
        return x.transpose(1, 2).flatten(0, 1)

    def _mask(self, reach: Reach) -> tuple[Tensor, Tensor]:
        """Scores to add: over the prefix `[S, 1, g * R or 1, Lp]`, over the own tokens `[n, 1, 1, T]`."""
        if reach not in self._masks:
            own_at = torch.arange(self._width, device=self._row.device)
            prefix_at = torch.arange(self._prefix_width, device=self._row.device)
            own = own_at > self._own_length[:, None]  # [n, T]
            prefix = prefix_at >= self._lengths[:, None]  # [S, Lp]
            if reach == EVERYTHING:
                hidden = prefix[:, None, None]
            else:
                first = self.positions - self._own_length  # [n] the position of the first own token
                own |= reach.hides(self.positions[:, None], first[:, None] + own_at)
                position = self.positions.new_zeros(self._prefixes * self._sharing + 1)
                position[self._place] = self.positions
                position = position[:-1].view(self._prefixes, self._sharing)  # [S, g]
                outside = reach.hides(position[:, :, None], prefix_at)  # [S, g, Lp]
                hidden = (prefix[:, None] | outside)[:, None]
            self._masks[reach] = (
                torch.zeros_like(hidden, dtype=torch.float32).masked_fill_(hidden, HIDDEN),
                torch.zeros_like(own, dtype=torch.float32).masked_fill_(own, HIDDEN)[:, None, None],
            )
        return self._masks[reach]


def _partial(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, softcap: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax attention left unfinished, so that two parts can be merged: (weighted values, peak, sum of exponentials).

    query `[n, K, R, D]`, key and value `[n, K, T, D]`, mask broadcastable to `[n, K, R, T]` (R a multiple of its rows).
    """
    scores = bent((query @ key.transpose(-1, -2)).float(), softcap)
    if mask.shape[2] not in (1, scores.shape[2]):  # one mask row serves the R heads of a key head
        mask = mask.repeat_interleave(scores.shape[2] // mask.shape[2], 2)
    scores += mask
    peak = scores.amax(-1, keepdim=True)
    weights = (scores - peak).exp_()
    return (weights.to(value.dtype) @ value).float(), peak, weights.sum(-1, keepdim=True)


def _merge(a: tuple[Tensor, ...], b: tuple[Tensor, ...], sinks: Tensor | None) -> Tensor:
    """The softmax over the union of two parts, and of the sinks `[K, R, 1]` that have no value."""
    (out_a, peak_a, sum_a), (out_b, peak_b, sum_b) = a, b
    peak = torch.maximum(peak_a, peak_b)
    if sinks is not None:
        peak = torch.maximum(peak, sinks)
    scale_a, scale_b = (peak_a - peak).exp_(), (peak_b - peak).exp_()
    total = sum_a * scale_a + sum_b * scale_b
    if sinks is not None:
        total = total + (sinks - peak).exp_()
    return (out_a * scale_a + out_b * scale_b) / total


def _grow(x: Tensor, rows: int, width: int) -> Tensor:
    """`[rows', K, width', D]` copied into a larger zeroed tensor, when it is larger."""
    if x.shape[0] >= rows and x.shape[2] >= width:
        return x
    grown = x.new_zeros(max(rows, x.shape[0]), x.shape[1], max(width, x.shape[2]), x.shape[3])
    grown[: x.shape[0], :, : x.shape[2]] = x
    return grown
